"""PSNR and SSIM against their definitions, written out."""

import numpy as np
import pytest
from scipy import signal

from realiz3d_jax.metrics.image import psnr, similarity_map, ssim


def pictures(size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    a = random.uniform(0, 255, (size, size, 3))
    return a, np.clip(a + random.normal(0, 20, a.shape), 0, 255)


def naive_ssim_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Equations 6 to 13 of Wang et al. 2004 with a two-dimensional window, for one channel."""
    x, y = np.mgrid[-5:6, -5:6]
    window = np.exp(-(x**2 + y**2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(image):
        return signal.convolve2d(image, window, mode="valid")

    mean_a, mean_b = mean(a), mean(b)
    variance_a, variance_b, covariance = mean(a**2) - mean_a**2, mean(b**2) - mean_b**2, mean(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return (
        (2 * mean_a * mean_b + c1)
        * (2 * covariance + c2)
        / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))
    )


def test_an_error_of_one_level_everywhere_is_48_decibels():
    a = np.full((8, 8, 3), 100, np.uint8)
    assert psnr(a, a + 1) == pytest.approx(20 * np.log10(255))


def test_equal_images_have_the_highest_figures_and_both_are_finite():
    a, _ = pictures()
    assert psnr(a, a) == 100.0
    assert ssim(a, a) == pytest.approx(1.0)


def test_only_masked_pixels_count_for_psnr():
    a, b = pictures()
    mask = np.zeros((32, 32), bool)
    mask[4:9, 7:20] = True
    expected = 10 * np.log10(255**2 / np.mean((a[4:9, 7:20] - b[4:9, 7:20]) ** 2))
    assert psnr(a, b, mask) == pytest.approx(expected)


def test_similarity_is_that_of_the_defining_paper():
    a, b = pictures()
    expected = np.mean([naive_ssim_map(a[..., channel], b[..., channel]) for channel in range(3)], axis=0)
    np.testing.assert_allclose(similarity_map(a, b), expected, rtol=1e-8)
    assert ssim(a, b) == pytest.approx(expected.mean())


def test_similarity_of_several_images_is_the_mean_of_theirs():
    a, b = pictures()
    assert ssim(np.stack([a, a]), np.stack([a, b])) == pytest.approx((1.0 + ssim(a, b)) / 2)


def test_masked_similarity_counts_the_windows_round_masked_pixels():
    a, b = pictures()
    mask = np.zeros((32, 32), bool)
    mask[10, 20] = mask[0, 0] = True  # no window fits round the corner
    assert ssim(a, b, mask) == pytest.approx(similarity_map(a, b)[5, 15])


def test_bytes_do_not_wrap_round():
    black, white = np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)
    assert psnr(black, white) == pytest.approx(0.0)
    assert ssim(black, white) == pytest.approx(1e-4, rel=0.01)
