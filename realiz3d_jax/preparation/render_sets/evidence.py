"""Consistency checks of views: positions from depth, normals from positions, and whether stored maps agree with them.

Formats document the direction of normals, their channel order and the camera poses, but files deviate from the documentation.
Normals can be derived from the positions of a visible surface; an object is imported only if its stored normals agree with
the derived ones, and the positions of all views agree with each other.

With s the ray's unit direction through a pixel's centre, o its origin, b the camera's backward axis and z a depth along the
optical axis, the position is

    p = o + s z / (-s . b).                                                                                                 (1)
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.cameras import Camera

AGREEMENT = 0.85
"""Least fraction of a view's pixels whose normal must be within 60 degrees of the surface's. Smooth shading and bumps stay
above it; a channel with the wrong sign or in the wrong place stays below (a sphere: 0.61, three sides of a cube: 0.67)."""

_NEAR = 0.5
_FEWEST = 32
_OVERLAP = 0.8
_CLEARANCE = 0.03
_CLEAR = 0.1
_SAMPLE = 500


def positions_from_depth(camera: Camera, depth: np.ndarray) -> np.ndarray:
    """Computes the positions that pixels see, equation (1): float64[H, W, 3], world.

    Args:
      camera: camera of the view.
      depth: float[H, W], z along the optical axis, not along the ray, in world units.
    """
    origins, directions = camera.rays(depth.shape[0])
    along = -(directions @ camera.backward)
    return origins + directions * (depth / along)[..., None]


def seen_normals(
    camera: Camera, position: np.ndarray, mask: np.ndarray, stride: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Derives surface normals from positions, facing the viewer, by differences across ``2 * stride`` pixels.

    Args:
      camera: camera of the view.
      position: float[H, W, 3], world.
      mask: bool[H, W], where a position is known.
      stride: pixels; larger for rounded positions.

    Returns:
      normal: float32[H, W, 3], unit where known, else 0.
      known: bool[H, W], away from the edges of the mask and from jumps in depth.
    """
    normal, known = np.zeros(position.shape), np.zeros(mask.shape, bool)
    size, step = len(mask), 2 * stride
    if size <= step:
        return normal, known
    inner = slice(stride, size - stride)
    position = np.asarray(position, np.float64)
    middle, whole = position[inner, inner], mask[inner, inner].copy()
    differences = []
    for one, other in (
        ((inner, slice(step, None)), (inner, slice(None, size - step))),
        ((slice(None, size - step), inner), (slice(step, None), inner)),
    ):
        difference = position[one] - position[other]
        bend = np.linalg.norm(position[one] + position[other] - 2 * middle, axis=-1)
        whole &= mask[one] & mask[other] & (bend < 0.25 * np.linalg.norm(difference, axis=-1))
        differences.append(difference)
    cross = np.cross(*differences)
    length = np.linalg.norm(cross, axis=-1)
    whole &= length > 1e-12
    normal[inner, inner] = np.where(whole[..., None], cross / np.maximum(length, 1e-12)[..., None], 0)
    known[inner, inner] = whole
    towards = camera.center - position if camera.perspective else np.broadcast_to(camera.backward, position.shape)
    away = np.sum(normal * towards, axis=-1, keepdims=True) < 0
    return np.where(away, -normal, normal).astype(np.float32), known


def agreement(normal: np.ndarray, seen: np.ndarray, known: np.ndarray) -> float:
    """Fraction of known pixels whose normal is within 60 degrees of the surface's; NaN if fewer than 32 are known.

    Args:
      normal: float[..., 3], unit.
      seen, known: as returned by ``seen_normals``.
    """
    if known.sum() < _FEWEST:
        return float("nan")
    return float((np.sum(normal[known] * seen[known], axis=-1) > _NEAR).mean())


def check_free_space(cameras: Sequence[Camera], position: np.ndarray, mask: np.ndarray, place: str) -> None:
    """Checks that no position seen by one view lies in the free space of another: in its background or before its surface.

    Args:
      cameras: cameras of the views.
      position: float[V, H, W, 3], world.
      mask: bool[V, H, W], where a position is known.
      place: name of the object in the error.

    Raises:
      UserError: more than a tenth of a view's positions lie in another view's free space.
    """
    size = mask.shape[-1]
    nearest = []  # for each view, the least depth within one pixel (3 x 3)
    for camera, places, seen in zip(cameras, position, mask, strict=True):
        depth = np.where(seen, camera.project(places, size)[1], np.inf)
        nearest.append(
            np.pad(ndimage.minimum_filter(depth, 3, mode="constant", cval=np.inf), 1, constant_values=np.inf)
        )
    for view, (places, seen) in enumerate(zip(position, mask, strict=True)):
        sample = places[seen][:: max(1, int(seen.sum()) // _SAMPLE)]
        for other, camera in enumerate(cameras):
            pixels, depth = camera.project(sample, size)
            column, row = np.clip(np.floor(pixels).astype(int), -1, size).T + 1
            inside = (row > 0) & (row <= size) & (column > 0) & (column <= size)
            clear = depth[inside] < nearest[other][row[inside], column[inside]] - _CLEARANCE
            if other != view and inside.any() and clear.mean() > _CLEAR:
                raise UserError(
                    f"{place}: {clear.mean():.2f} of the surface in view {view} lies where view {other} sees free space; "
                    f"expected at most {_CLEAR}. A camera, its lens or the depth follows another convention than the format's, "
                    "or belongs to another object."
                )


def check_overlap(one: np.ndarray, other: np.ndarray, message: str) -> None:
    """Raises UserError with ``message`` unless two masks bool[H, W] have an intersection over union of 0.8 or more."""
    union = int((one | other).sum())
    share = int((one & other).sum()) / union if union else 0.0
    if share < _OVERLAP:
        raise UserError(f"{message}: their intersection over union is {share:.2f}; expected {_OVERLAP} or more.")


def unit(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normalises decoded normals; returns (normals float64[..., 3], usable bool[...], where the length was above 0.5)."""
    vectors = np.asarray(vectors, np.float64)
    length = np.linalg.norm(vectors, axis=-1)
    usable = np.isfinite(length) & (length > 0.5)
    return np.where(usable[..., None], vectors / np.where(usable, length, 1)[..., None], 0), usable


def background_zero(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Casts a map float[..., 3] to float32 and sets it to 0 outside the mask bool[...]."""
    return np.where(mask[..., None], values, 0).astype(np.float32)
