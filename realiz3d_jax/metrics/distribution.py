"""Distances between two sets of images in the feature space of a network: FID and KID."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from realiz3d_jax.metrics.metric import Evaluated, Line, Metric, Row


def frechet_distance(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """FID (Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule", eq. 6).

        ‖μ_a - μ_b‖² + tr(Σ_a + Σ_b - 2 (Σ_a^½ Σ_b Σ_a^½)^½)

    Computed in float64 with symmetric eigen-decompositions only: no imaginary part has to be dropped, and singular covariances
    (fewer images than features) need no special case. Covariances are divided by n - 1, as in pytorch-fid.

    Args:
      features_a: float[n, F], n >= 2.
      features_b: float[m, F], m >= 2.

    Returns:
      The distance, non-negative up to rounding.
    """
    a, b = np.asarray(features_a, np.float64), np.asarray(features_b, np.float64)
    covariance_a, covariance_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    covariance_a, covariance_b = np.atleast_2d(covariance_a), np.atleast_2d(covariance_b)
    root = _symmetric_root(covariance_a)
    mixed = np.linalg.eigvalsh(root @ covariance_b @ root)
    cross = np.sqrt(np.maximum(mixed, 0.0)).sum()
    shift = np.sum(np.square(a.mean(axis=0) - b.mean(axis=0)))
    return float(shift + np.trace(covariance_a) + np.trace(covariance_b) - 2.0 * cross)


def kernel_distance(
    features_a: np.ndarray, features_b: np.ndarray, *, subsets: int = 100, subset_size: int = 100, seed: int = 0
) -> tuple[float, float]:
    """KID (Bińkowski et al. 2018, "Demystifying MMD GANs", section 4): the unbiased squared MMD with (x·y/F + 1)³.

    Args:
      features_a: float[n, F], n >= 2.
      features_b: float[m, F], m >= 2.
      subsets: number of random subsets, each drawn without replacement.
      subset_size: images of each set in a subset, at most min(n, m).
      seed: seed of the draws.

    Returns:
      Mean and standard deviation over the subsets. The estimate is unbiased: for equal distributions its expectation is 0, so
      it can be negative.
    """
    a, b = np.asarray(features_a, np.float64), np.asarray(features_b, np.float64)
    random = np.random.default_rng(seed)
    size = min(subset_size, len(a), len(b))
    distances = [
        _squared_mmd(a[random.choice(len(a), size, replace=False)], b[random.choice(len(b), size, replace=False)])
        for _ in range(subsets)
    ]
    return float(np.mean(distances)), float(np.std(distances))


def _squared_mmd(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased estimate from two equally large sets, float64[n, F] each."""
    count, channels = a.shape

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / channels + 1.0) ** 3

    def mean_of_pairs(x: np.ndarray) -> float:
        values = kernel(x, x)
        return (values.sum() - np.trace(values)) / (count * (count - 1))

    return mean_of_pairs(a) + mean_of_pairs(b) - 2.0 * kernel(a, b).mean()


def _symmetric_root(matrix: np.ndarray) -> np.ndarray:
    """Positive semi-definite square root of a positive semi-definite matrix, float64[F, F]."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def _of_set(objects: Sequence[Evaluated], rows: Sequence[Row], references: Mapping[str, np.ndarray]) -> dict[str, Any]:
    features = np.concatenate([one.features for one in objects])
    found: dict[str, Any] = {}
    for name, reference in references.items():
        mean, std = kernel_distance(features, reference)
        found |= {f"fid_{name}": frechet_distance(features, reference), f"kid_{name}": {"mean": mean, "std": std}}
    return found


METRIC = Metric(
    group="Realism",
    lines=(
        Line(
            "FID, base images",
            "Distance to images of the base model, in the classifier’s features.",
            *(-1, 2, lambda row: row["fid_base"]),
        ),
        Line(
            "KID, base images",
            "The same as an unbiased estimate, which may fall below 0.",
            *(-1, 3, lambda row: row["kid_base"]["mean"]),
        ),
        Line(
            "FID, real renders",
            "Distance to the true real renders of the held-out objects.",
            *(-1, 2, lambda row: row["fid_real"]),
        ),
        Line("KID, real renders", "The same, unbiased.", -1, 3, lambda row: row["kid_real"]["mean"]),
    ),
    of_set=_of_set,
)
"""FID and KID to each set of reference images."""
