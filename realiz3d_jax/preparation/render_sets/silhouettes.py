"""Checks whether silhouettes are consistent with one object under given cameras.

For sets without depth, this is the only check of the cameras: the largest body whose outlines lie within all masks (the visual
hull) must fill each mask. It does not under cameras at another distance, with reversed azimuths or looking elsewhere, unless
the object looks alike from there. Outlines cannot distinguish size from distance, so both are fixed by the cube of side 1 into
which the sets fit their objects.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from realiz3d_jax.geometry.cameras import Camera

_CELLS = 56
_COVERED = 0.995
_EXTENT = 0.95


def consistent(cameras: Sequence[Camera], mask: np.ndarray) -> bool:
    """Returns whether one object in the cube [-0.5, 0.5], with a side near 1, can have all these outlines.

    Args:
      cameras: one per view.
      mask: bool[V, H, W], True where the object is visible.
    """
    size = mask.shape[-1]
    ticks = (np.arange(_CELLS) + 0.5) / _CELLS - 0.5
    cells = np.stack(np.meshgrid(ticks, ticks, ticks, indexing="ij"), axis=-1).reshape(-1, 3)
    inside = np.ones(len(cells), bool)
    places, reach = [], []
    for camera, seen in zip(cameras, mask, strict=True):
        pixels, depth = camera.project(cells, size)
        width = camera.width * max(float(np.median(depth)) - 0.5, 0.1) if camera.perspective else camera.width
        reach.append(int(np.ceil(0.87 / _CELLS / width * size)))  # half a cell's diagonal in pixels, on the near side
        place = np.clip(np.floor(pixels).astype(int), -1, size)
        cut_off = seen[[0, -1]].any() or seen[:, [0, -1]].any()  # then the outline continues outside the view
        near = np.pad(_grown(seen, reach[-1]), 1, constant_values=cut_off)
        inside &= near[place[:, 1] + 1, place[:, 0] + 1]
        places.append(place)
    if not inside.any() or np.ptp(cells[inside], axis=0).max() + 1 / _CELLS < _EXTENT:
        return False
    for seen, place, pixels in zip(mask, places, reach, strict=True):
        hull = np.zeros((size + 2, size + 2), bool)
        hull[place[inside, 1] + 1, place[inside, 0] + 1] = True
        if seen.any() and _grown(hull, pixels)[1:-1, 1:-1][seen].mean() < _COVERED:
            return False
    return True


def _grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    return ndimage.maximum_filter(mask, 2 * pixels + 1, mode="constant")
