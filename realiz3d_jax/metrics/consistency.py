"""Multi-view consistency: agreement of the generated views where they show the same surface.

The views are back-projected onto the mesh, blended and rendered again (``geometry/projection.py``). The result is compared with
the generated views in two ways:

* *whole*, the paper's table: all views take part, so each pixel is compared with a blend that contains itself. Pixels seen by
  their own view alone agree perfectly, and four orthogonal views of most objects overlap little: this measures overlap as much
  as consistency.
* *overlap*, leave-one-view-out: each pixel is compared with the blend of the *other* views, only where at least one of them
  sees its surface point. *fraction* is the share of the foreground that is compared.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from realiz3d_jax.geometry.projection import Correspondence, blend
from realiz3d_jax.metrics import image
from realiz3d_jax.metrics.metric import Evaluated, Line, Metric, Row

_WHITE = 255.0


@dataclasses.dataclass(frozen=True)
class Consistency:
    """Scores of one object.

    Attributes:
      whole_psnr: dB, over all pixels of all views.
      whole_ssim: mean over windows and views.
      overlap_psnr: dB, over the overlap; None if no two views show the same surface.
      overlap_ssim: mean over windows centred in the overlap; None if no two views show the same surface.
      overlap_fraction: share of the foreground that another view sees, in [0, 1].
    """

    whole_psnr: float
    whole_ssim: float
    overlap_psnr: float | None
    overlap_ssim: float | None
    overlap_fraction: float


def consistency(where: Correspondence, views: np.ndarray) -> Consistency:
    """Scores the consistency of the generated views of one object.

    Args:
      where: correspondence of the object's views, of the same size.
      views: uint8[V, H, W, 3], on white.
    """
    views = np.asarray(views, np.float32)
    rendered, _ = blend(where, views, others_only=False)
    rendered = np.where(where.mask[..., None], rendered, _WHITE)
    from_others, overlap = blend(where, views, others_only=True)
    # Both images are the generated one outside the overlap, so nothing is compared there.
    from_others = np.where(overlap[..., None], from_others, views)
    any_overlap = bool(overlap.any())
    border = image.WINDOW // 2
    sides = ((0, 0), (border, border), (border, border))
    return Consistency(
        whole_psnr=image.psnr(views, rendered),
        whole_ssim=image.ssim(views, rendered),
        overlap_psnr=image.psnr(views, from_others, overlap) if any_overlap else None,
        # A white margin gives windows to overlap at the border of the image, too.
        overlap_ssim=image.ssim(
            np.pad(views, (*sides, (0, 0)), constant_values=_WHITE),
            np.pad(from_others, (*sides, (0, 0)), constant_values=_WHITE),
            np.pad(overlap, sides),
        )
        if any_overlap
        else None,
        overlap_fraction=float(overlap.sum() / max(where.mask.sum(), 1)),
    )


def _of_object(one: Evaluated) -> dict[str, Any]:
    found = None if one.where is None else dataclasses.asdict(consistency(one.where, one.item.views))
    return {"consistency": found}


def _of_set(objects: Sequence[Evaluated], rows: Sequence[Row], references: Mapping[str, np.ndarray]) -> dict[str, Any]:
    found = [row["consistency"] for row in rows if row["consistency"]]

    def mean(name: str) -> float | None:
        values = [row[name] for row in found if row[name] is not None]
        return float(np.mean(values)) if values else None

    if not found:
        return {"consistency": None}
    return {
        "consistency": {
            "whole": {"psnr": mean("whole_psnr"), "ssim": mean("whole_ssim")},
            "overlap": {
                "psnr": mean("overlap_psnr"),
                "ssim": mean("overlap_ssim"),
                "fraction": mean("overlap_fraction"),
                "objects": sum(row["overlap_psnr"] is not None for row in found),
            },
        }
    }


def _part(part: str, name: str) -> Callable[[Row], Any]:
    return lambda row: row["consistency"][part][name]


METRIC = Metric(
    group="Multi-view consistency",
    lines=(
        Line(
            "PSNR, dB",
            "Views put onto the mesh and drawn again from there, against themselves.",
            *(1, 2, _part("whole", "psnr")),
        ),
        Line("SSIM", "The same by structure; 1 is perfect.", 1, 3, _part("whole", "ssim")),
        Line(
            "Overlap-only PSNR, dB",
            "Each view against what the other three show of the same surface.",
            *(1, 2, _part("overlap", "psnr")),
        ),
        Line("Overlap-only SSIM", "The same by structure.", 1, 3, _part("overlap", "ssim")),
        Line(
            "Overlap / foreground",
            "Share of the foreground that another view sees, too.",
            *(0, 2, _part("overlap", "fraction")),
        ),
    ),
    of_object=_of_object,
    of_set=_of_set,
)
"""Means over objects; ``objects`` counts those with any overlap, and ``fraction`` counts the others as 0."""
