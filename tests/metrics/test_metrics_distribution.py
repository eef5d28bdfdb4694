"""FID and KID against closed forms and against plain implementations."""

import numpy as np
import pytest
import scipy.linalg
import torch

from realiz3d_jax.metrics.distribution import frechet_distance, kernel_distance


def gaussian(mean: np.ndarray, covariance: np.ndarray, count: int = 200) -> np.ndarray:
    """Samples whose mean and covariance (divided by n - 1) are these exactly."""
    features = np.random.default_rng(0).normal(size=(count, len(mean)))
    features -= features.mean(axis=0)
    features = features @ np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(features, rowvar=False)))).T
    return features @ np.linalg.cholesky(covariance).T + mean


def random_covariance(seed: int, channels: int = 6) -> np.ndarray:
    root = np.random.default_rng(seed).normal(size=(channels, channels))
    return root @ root.T + 0.1 * np.eye(channels)


def test_distance_of_gaussians_in_one_dimension_is_the_distance_of_means_and_deviations():
    a, b = gaussian(np.array([1.0]), np.array([[4.0]])), gaussian(np.array([4.0]), np.array([[0.25]]))
    assert frechet_distance(a, b) == pytest.approx(3.0**2 + (2.0 - 0.5) ** 2)


def test_distance_of_commuting_covariances_is_that_of_their_roots():
    scales_a, scales_b = np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 0.5])
    a, b = gaussian(np.zeros(3), np.diag(scales_a**2)), gaussian(np.ones(3), np.diag(scales_b**2))
    assert frechet_distance(a, b) == pytest.approx(3.0 + np.sum((scales_a - scales_b) ** 2))


def test_distance_of_any_gaussians_is_that_of_the_formula_with_a_matrix_root():
    covariance_a, covariance_b, shift = random_covariance(1), random_covariance(2), np.arange(6.0)
    a, b = gaussian(np.zeros(6), covariance_a), gaussian(shift, covariance_b)
    cross = np.trace(scipy.linalg.sqrtm(covariance_a @ covariance_b).real)
    expected = shift @ shift + np.trace(covariance_a) + np.trace(covariance_b) - 2 * cross
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-8)


def test_a_set_has_no_distance_to_itself_even_with_fewer_images_than_features():
    features = np.random.default_rng(3).normal(size=(10, 40)).astype(np.float32)
    assert abs(frechet_distance(features, features)) < 1e-5  # of covariances with a trace of 40


def naive_kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Equation 4 of Bińkowski et al. 2018, pair by pair, in torch."""
    a, b = torch.from_numpy(a), torch.from_numpy(b)
    kernel = lambda x, y: (torch.dot(x, y) / len(x) + 1) ** 3  # noqa: E731
    n = len(a)
    within = lambda x: sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))  # noqa: E731
    across = sum(kernel(x, y) for x in a for y in b) / (n * n)
    return float(within(a) + within(b) - 2 * across)


def test_kernel_distance_of_whole_sets_is_the_unbiased_estimate():
    random = np.random.default_rng(4)
    a, b = random.normal(size=(15, 8)), random.normal(0.5, 1.2, size=(15, 8))
    mean, deviation = kernel_distance(a, b, subsets=3, subset_size=15)
    assert mean == pytest.approx(naive_kernel_distance(a, b), rel=1e-10)
    assert deviation == pytest.approx(0.0, abs=1e-12)


def test_the_subsets_of_both_sets_are_drawn_at_random_so_that_their_mean_is_that_of_the_whole_sets():
    random = np.random.default_rng(4)
    a, b = random.normal(size=(15, 8)), random.normal(0.5, 1.2, size=(15, 8))
    a[:5], b[:5] = a[:5] + 2, b[:5] - 2  # the first of each set are like no others
    mean, deviation = kernel_distance(a, b, subsets=2000, subset_size=5)
    assert deviation > 0.1
    assert mean == pytest.approx(naive_kernel_distance(a, b), abs=5 * deviation / np.sqrt(2000))


def test_kernel_distance_of_equal_distributions_is_zero_on_average_and_grows_with_a_shift():
    random = np.random.default_rng(5)
    a, b = random.normal(size=(2, 2000, 8))
    same, spread = kernel_distance(a, b, subsets=200)
    assert abs(same) < 4 * spread / np.sqrt(200) + 2e-3
    # For x·y kernels the squared distance of means enters first order: a shift of 1 in one of 8 channels.
    assert kernel_distance(a, b + np.eye(8)[0])[0] > 0.2


def test_the_draw_of_subsets_is_that_of_the_seed():
    a, b = np.random.default_rng(6).normal(size=(2, 300, 4))
    assert kernel_distance(a, b, seed=1) == kernel_distance(a, b, seed=1)
    assert kernel_distance(a, b, seed=1) != kernel_distance(a, b, seed=2)
