"""Multi-view consistency: do the generated views agree where they show the same surface?

The views are back-projected onto the mesh, blended, and rendered again (``geometry/projection.py``), and the result is
compared with the generated views, in two ways:

* *whole*, the paper's table: all views take part, so each pixel is compared with a blend that contains itself; pixels that
  only their own view sees agree perfectly, and four orthogonal views of most objects overlap little. It measures the
  overlap as much as the consistency.
* *overlap*, leave-one-view-out: each pixel is compared with what the *other* views say, only where at least one other view
  sees it. *fraction* tells what part of the foreground that is.
"""

import dataclasses

import numpy as np

from realiz3d_jax.geometry.projection import Correspondence, blend
from realiz3d_jax.metrics import image

_WHITE = 255.0


@dataclasses.dataclass(frozen=True)
class Consistency:
    """The scores of one object; PSNR in dB over all its views together, SSIM as a mean.

    ``overlap_psnr`` and ``overlap_ssim`` are None for an object of which no two views show the same surface.
    """

    whole_psnr: float
    whole_ssim: float
    overlap_psnr: float | None
    overlap_ssim: float | None
    overlap_fraction: float


def consistency(where: Correspondence, views: np.ndarray) -> Consistency:
    """The consistency of generated views of one object.

    Args:
      where: the correspondence of the object's views, of the same size.
      views: uint8[V, H, W, 3] on white.
    """
    views = np.asarray(views, np.float32)
    rendered, _ = blend(where, views, others_only=False)
    rendered = np.where(where.mask[..., None], rendered, _WHITE)
    from_others, overlap = blend(where, views, others_only=True)
    # Outside the overlap nothing is compared: there both images are the generated one.
    from_others = np.where(overlap[..., None], from_others, views)
    any_overlap = bool(overlap.any())
    border = image.WINDOW // 2
    sides = ((0, 0), (border, border), (border, border))
    return Consistency(
        whole_psnr=image.psnr(views, rendered),
        whole_ssim=image.ssim(views, rendered),
        overlap_psnr=image.psnr(views, from_others, overlap) if any_overlap else None,
        # White is added round the views, so that windows exist for overlap at the image's border, too.
        overlap_ssim=image.ssim(
            np.pad(views, (*sides, (0, 0)), constant_values=_WHITE),
            np.pad(from_others, (*sides, (0, 0)), constant_values=_WHITE),
            np.pad(overlap, sides),
        )
        if any_overlap
        else None,
        overlap_fraction=float(overlap.sum() / max(where.mask.sum(), 1)),
    )
