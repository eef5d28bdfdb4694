"""All metrics of a set of generated objects, side by side."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from realiz3d_jax import progress
from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.assets.asset import load_asset
from realiz3d_jax.geometry.projection import correspondence
from realiz3d_jax.metrics import consistency, distribution, domain_score, silhouette
from realiz3d_jax.metrics.metric import Evaluated, Item, Line, Metric

_COUNT = Metric(
    group="Sample size",
    lines=(Line("Objects", "Each with four views.", 0, 0, lambda row: row["count"]["objects"]),),
    of_set=lambda objects, rows, references: {
        "count": {"objects": len(objects), "views": sum(len(one.item.views) for one in objects)}
    },
)

METRICS: tuple[Metric, ...] = (
    domain_score.METRIC,
    distribution.METRIC,
    silhouette.METRIC,
    consistency.METRIC,
    _COUNT,
)
"""Every metric, in the order of the tables."""

LINES: dict[str, tuple[Line, ...]] = {
    group: tuple(line for metric in METRICS if metric.group == group for line in metric.lines)
    for group in dict.fromkeys(metric.group for metric in METRICS)
}
"""The lines of all metrics, under their headings."""

STRIPS = tuple(metric.strip for metric in METRICS if metric.strip is not None)
"""The charts of single objects."""

FEWEST_OBJECTS = 20
"""Below this number of objects, distances between distributions say little."""


def common_size(items: Iterable[Item], name: str) -> int:
    """The number of pixels along a side of all views; ``name`` is what an error calls the items.

    Raises:
      UserError: the sizes differ.
    """
    sizes: dict[int, str] = {}
    for item in items:
        sizes.setdefault(item.views.shape[1], item.name)
    if len(sizes) > 1:
        found = ", ".join(f"{size} pixels ({first})" for size, first in sizes.items())
        raise UserError(f"{name}: found views of {found}; expected one size, since their figures do not compare.")
    return next(iter(sizes))


def caution(objects: int) -> str | None:
    """A warning if FID and KID rest on fewer than ``FEWEST_OBJECTS``, else None."""
    if objects >= FEWEST_OBJECTS:
        return None
    return (
        f"FID and KID rest on {objects} object{'s' * (objects != 1)}, and change with each; expected {FEWEST_OBJECTS} or more "
        "to compare models by them. Sample more objects, or compare by the other metrics."
    )


def evaluate_views(
    items: Sequence[Item],
    references: Mapping[str, np.ndarray],
    classifier: domain_score.Classifier,
    description: str = "evaluating",
    metrics: Sequence[Metric] = METRICS,
) -> dict[str, Any]:
    """The metrics of generated objects, as JSON values; None stands for a value that does not exist.

    Args:
      items: at least one, all of one size.
      references: features float32[m, F] by the same classifier of images to compare with, by name.
      classifier: gives the probability of being real, and the features of FID and KID.
      description: the text of the progress bar.
      metrics: the metrics to compute.

    Returns:
      the entries of each metric for the whole set, and ``items``: a row for each object with its ``name``, its ``caption``
      and the entries of each metric.

    Raises:
      UserError: a mesh is missing or broken.
    """
    probabilities, features = domain_score.evaluate(classifier.params, np.concatenate([item.views for item in items]))
    ends = np.cumsum([len(item.views) for item in items])[:-1]
    objects, rows = [], []
    tracked = progress.track(items, description)
    for item, scores, found in zip(tracked, np.split(probabilities, ends), np.split(features, ends), strict=True):
        where, asset = None, item.asset
        if asset is None and item.mesh is not None:
            asset = load_asset(item.mesh, item.up)
        if asset is not None:
            where = correspondence(asset.mesh, item.views.shape[1], item.cameras)
        one = Evaluated(item, where, scores, found)
        row: dict[str, Any] = {"name": item.name, "caption": item.caption}
        for metric in metrics:
            row |= metric.of_object(one)
        objects.append(one)
        rows.append(row)
    result: dict[str, Any] = {}
    for metric in metrics:
        result |= metric.of_set(objects, rows, references)
    return result | {"items": rows}
