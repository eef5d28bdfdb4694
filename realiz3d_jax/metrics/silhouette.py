"""Agreement of the silhouette of a generated view with that of the true shape."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from realiz3d_jax.metrics.metric import Evaluated, Line, Metric, ObjectLine, Row

THRESHOLD = 32
"""Pixels within this many of 255 levels of white, in every channel, are background whatever surrounds them; above the
background noise of photographs and generated images."""


def foreground(images: np.ndarray) -> np.ndarray:
    """Segments the object in images on white.

    A pixel is pale if it is less than ``THRESHOLD`` below white, or less than half as far below white as the darkest of the
    3 x 3 pixels around it: the object then covers less than half of it, which agrees with a mask of pixel centres. The
    background is the pale pixels that are 4-connected to the border of the image. A white highlight inside the object, or a
    hole through it, therefore counts as foreground.

    Args:
      images: uint8[V, H, W, 3].

    Returns:
      bool[V, H, W].
    """
    depth = 255 - np.asarray(images).min(axis=-1).astype(np.int32)
    around = np.pad(depth, ((0, 0), (1, 1), (1, 1)))
    deepest = np.lib.stride_tricks.sliding_window_view(around, (3, 3), axis=(1, 2)).max(axis=(-2, -1))
    return ~_reached_from_border((depth < THRESHOLD) | (2 * depth < deepest))


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Fills background that is not connected to the border: bool[V, H, W] to bool[V, H, W]."""
    return ~_reached_from_border(~np.asarray(mask, bool))


def silhouette_iou(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Intersection over union of the filled silhouettes.

    Holes through the object are filled in both, because an image does not distinguish them from highlights.

    Args:
      images: uint8[V, H, W, 3], generated views on white.
      mask: bool[V, H, W], the true mask, not empty in any view.

    Returns:
      float64[V], in [0, 1].
    """
    found, true = foreground(images), fill_holes(mask)
    return (found & true).sum(axis=(1, 2)) / (found | true).sum(axis=(1, 2))


def _reached_from_border(free: np.ndarray) -> np.ndarray:
    """Pixels of ``free`` bool[V, H, W] that a path of free pixels connects to the border of the image."""
    border = np.zeros_like(free)
    border[:, [0, -1]] = border[:, :, [0, -1]] = True
    reached = free & border
    while True:
        grown = reached.copy()
        # Running maxima along rows and columns, interrupted by occupied pixels, follow whole straight paths in one step.
        for axis in (1, 2):
            for step in (1, -1):
                grown |= _along(grown, free, axis, step)
        if (grown == reached).all():
            return reached
        reached = grown


def _along(reached: np.ndarray, free: np.ndarray, axis: int, step: int) -> np.ndarray:
    """Pixels connected to ``reached`` by straight free paths in one direction."""
    reached, free = np.moveaxis(reached, axis, 0)[::step], np.moveaxis(free, axis, 0)[::step]
    position = np.arange(len(reached)).reshape(-1, 1, 1)
    last_reached = np.maximum.accumulate(np.where(reached, position, -1), axis=0)
    last_wall = np.maximum.accumulate(np.where(free, -1, position), axis=0)
    return np.moveaxis((last_reached > last_wall)[::step], 0, axis)


def _of_object(one: Evaluated) -> dict[str, Any]:
    found = None if one.where is None else silhouette_iou(one.item.views, one.where.mask).tolist()
    return {"silhouette_iou": found}


def _of_set(objects: Sequence[Evaluated], rows: Sequence[Row], references: Mapping[str, np.ndarray]) -> dict[str, Any]:
    found = [iou for row in rows for iou in row["silhouette_iou"] or []]
    return {"silhouette_iou": {"mean": float(np.mean(found)), "worst": min(found)} if found else None}


METRIC = Metric(
    group="Control",
    lines=(
        Line(
            "Silhouette IoU",
            "Overlap of a view’s outline with that of the mesh; 1 is perfect.",
            *(1, 3, lambda row: row["silhouette_iou"]["mean"]),
        ),
        Line(
            "Worst view’s IoU",
            "The lowest overlap among all views of all objects.",
            *(1, 3, lambda row: row["silhouette_iou"]["worst"]),
        ),
    ),
    of_object=_of_object,
    of_set=_of_set,
    strip=ObjectLine("silhouette_iou", "Control of each object", "silhouette IoU (mean of four views)", "IoU"),
)
"""Mean over all views, and the worst view."""
