"""The outline of an object on white, and its agreement with the true one."""

import numpy as np
import pytest
from scipy import ndimage

from realiz3d_jax.metrics.silhouette import fill_holes, foreground, silhouette_iou
from realiz3d_jax.preparation.shapes import examples


def disc(radius: float, size: int = 32, column: float = 16.0) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size] + 0.5
    return ((rows - 16) ** 2 + (columns - column) ** 2 < radius**2)[None]


def drawn(mask: np.ndarray, colour=(180, 60, 40)) -> np.ndarray:
    return np.where(mask[..., None], np.array(colour), 255).astype(np.uint8)


@pytest.mark.parametrize("colour", [(200, 30, 30), (255, 255, 120), (210, 212, 214), (10, 10, 10)])
def test_the_outline_of_a_coloured_disc_is_found_exactly(colour):
    assert silhouette_iou(drawn(disc(10), colour), disc(10)) == pytest.approx(1.0)


def test_a_white_highlight_inside_the_object_counts_as_inside():
    image = drawn(disc(10))
    image[disc(3)] = 255
    np.testing.assert_array_equal(foreground(image), disc(10))


@pytest.mark.parametrize("colour", [(200, 30, 30), (255, 255, 120), (10, 10, 10)])
def test_a_pixel_that_the_object_covers_by_less_than_half_is_outside(colour):
    coverage = np.stack([disc(10, column=16 + shift)[0] for shift in (-0.75, -0.25, 0.25, 0.75)]).mean(axis=0)
    blurred = 255 - coverage[..., None] * (255 - np.array(colour))
    mixed = (coverage > 0.2) & (coverage < 0.8)
    assert mixed.sum() > 10
    found = foreground(blurred[None].round().astype(np.uint8))[0]
    np.testing.assert_array_equal(found[coverage != 0.5], (coverage > 0.5)[coverage != 0.5])


def test_the_looks_of_the_benchmark_have_the_outline_of_their_mask():
    scores = []
    for index in range(8):
        example, _ = examples.asset_example("test", index, 32, 0)
        scores += [silhouette_iou(example[look], example["mask"]) for look in ("synthetic", "real")]
    assert np.mean(scores) > 0.98


def test_noise_of_the_background_is_not_foreground():
    noise = np.random.default_rng(0).normal(0, 8, (1, 32, 32, 3))
    image = np.clip(drawn(disc(10)) + noise, 0, 255).astype(np.uint8)
    assert silhouette_iou(image, disc(10)) > 0.99


def test_a_hole_through_the_object_is_not_judged():
    ring = disc(12) & ~disc(5)
    assert silhouette_iou(drawn(ring), ring) == pytest.approx(1.0)
    assert silhouette_iou(drawn(disc(12)), ring) == pytest.approx(1.0)


def test_the_overlap_of_shifted_squares_is_their_ratio():
    mask, image = np.zeros((2, 32, 32), bool), np.zeros((2, 32, 32), bool)
    mask[:, 8:24, 8:24] = True
    image[0, 8:24, 12:28] = True
    image[1, 8:16, 8:24] = True
    np.testing.assert_allclose(silhouette_iou(drawn(image), mask), [12 / 20, 0.5])


def test_an_empty_image_has_no_overlap():
    assert silhouette_iou(drawn(np.zeros((1, 32, 32), bool)), disc(8)) == 0.0


def test_holes_are_filled_as_scipy_fills_them():
    maze = np.random.default_rng(1).uniform(size=(20, 40, 40)) < 0.45
    np.testing.assert_array_equal(fill_holes(maze), [ndimage.binary_fill_holes(view) for view in maze])
