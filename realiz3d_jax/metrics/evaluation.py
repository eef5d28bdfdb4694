"""All metrics of a set of generated objects."""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from realiz3d_jax import progress
from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.assets.asset import Asset, load_asset
from realiz3d_jax.geometry.cameras import Camera
from realiz3d_jax.geometry.projection import correspondence
from realiz3d_jax.metrics import domain_score
from realiz3d_jax.metrics.consistency import consistency
from realiz3d_jax.metrics.distribution import frechet_distance, kernel_distance
from realiz3d_jax.metrics.silhouette import silhouette_iou

FEWEST_OBJECTS = 20
"""Below this number of objects, distances between distributions say little."""


@dataclasses.dataclass(frozen=True, eq=False)
class Item:
    """One generated object.

    Attributes:
      name: name of its row.
      caption: description of the object.
      views: uint8[V, H, W, 3], on white.
      cameras: V cameras, one per view.
      mesh: file of the mesh that controlled the views, or None.
      up: up axis of that file, "y" or "z"; None for the default of its format.
      asset: content of that file, if it has already been read.
    """

    name: str
    caption: str
    views: np.ndarray
    cameras: tuple[Camera, ...]
    mesh: pathlib.Path | None = None
    up: str | None = None
    asset: Asset | None = None


def common_size(items: Iterable[Item], name: str) -> int:
    """The pixels along a side of all views; ``name`` is what an error calls the items.

    Raises:
      UserError: they differ.
    """
    sizes: dict[int, str] = {}
    for item in items:
        sizes.setdefault(item.views.shape[1], item.name)
    if len(sizes) > 1:
        found = ", ".join(f"{size} pixels ({name})" for size, name in sizes.items())
        raise UserError(f"{name}: found views of {found}; expected one size, since their figures do not compare.")
    return next(iter(sizes))


def caution(objects: int) -> str | None:
    """A warning where FID and KID rest on fewer than ``FEWEST_OBJECTS``; None where they do not."""
    if objects >= FEWEST_OBJECTS:
        return None
    return (
        f"FID and KID rest on {objects} object{'s' * (objects != 1)}, and change with each; expected {FEWEST_OBJECTS} or more "
        "to compare models by them. Sample more objects, or compare by the other figures."
    )


def evaluate_views(
    items: Sequence[Item],
    references: Mapping[str, np.ndarray],
    classifier: domain_score.Classifier,
    description: str = "evaluating",
) -> dict[str, Any]:
    """Computes the metrics of generated objects.

    Args:
      items: at least one object; all views have one size.
      references: features float32[m, F] of the reference images under the same classifier, by name.
      classifier: evaluator of realism, and source of the features of FID and KID.
      description: label of the progress bar.

    Returns:
      JSON values, None where a metric does not apply:
        count: number of objects and of views.
        domain_score: mean and standard deviation over views of the probability of being real, and the fraction above 0.5.
        fid_NAME, kid_NAME (mean, std): for each of ``references``.
        silhouette_iou: mean over all views, and the worst view.
        consistency: whole and overlap (see ``metrics/consistency.py``), means over objects; ``objects`` counts those with any
          overlap, and ``fraction`` includes the others as 0.
        items: a row for each object.

    Raises:
      UserError: a mesh is missing or broken.
    """
    rows = [_row(item) for item in progress.track(items, description)]
    views = np.concatenate([item.views for item in items])
    probabilities, features = domain_score.evaluate(classifier.params, views)
    for row, scores in zip(
        rows, np.split(probabilities, np.cumsum([len(item.views) for item in items])[:-1]), strict=True
    ):
        row["domain_score"] = float(scores.mean())
    figures: dict[str, Any] = {
        "count": {"objects": len(items), "views": len(views)},
        "domain_score": {
            "mean": float(probabilities.mean()),
            "std": float(probabilities.std()),
            "fraction": float((probabilities > 0.5).mean()),
        },
    }
    for name, reference in references.items():
        mean, std = kernel_distance(features, reference)
        figures |= {f"fid_{name}": frechet_distance(features, reference), f"kid_{name}": {"mean": mean, "std": std}}
    outlines = [iou for row in rows for iou in row["silhouette_iou"] or []]
    figures["silhouette_iou"] = {"mean": float(np.mean(outlines)), "worst": min(outlines)} if outlines else None
    judged = [row["consistency"] for row in rows if row["consistency"]]
    figures["consistency"] = _mean_consistency(judged) if judged else None
    return figures | {"items": rows}


def _row(item: Item) -> dict[str, Any]:
    """Metrics of a single object."""
    row: dict[str, Any] = {"name": item.name, "caption": item.caption, "silhouette_iou": None, "consistency": None}
    if item.mesh is not None or item.asset is not None:
        asset = item.asset or load_asset(item.mesh, item.up)
        where = correspondence(asset.mesh, item.views.shape[1], item.cameras)
        row["silhouette_iou"] = silhouette_iou(item.views, where.mask).tolist()
        row["consistency"] = dataclasses.asdict(consistency(where, item.views))
    return row


def _mean_consistency(rows: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    def mean(name: str) -> float | None:
        values = [row[name] for row in rows if row[name] is not None]
        return float(np.mean(values)) if values else None

    return {
        "whole": {"psnr": mean("whole_psnr"), "ssim": mean("whole_ssim")},
        "overlap": {
            "psnr": mean("overlap_psnr"),
            "ssim": mean("overlap_ssim"),
            "fraction": mean("overlap_fraction"),
            "objects": sum(row["overlap_psnr"] is not None for row in rows),
        },
    }
