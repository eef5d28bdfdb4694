"""What views say about themselves: places from depth, normals from places, and whether maps agree with them.

Formats say in words which way normals point, what order their channels have and where their cameras stand, and files differ
from the words. A surface that is seen has a place in every view, so its normals follow from its places; what a file says of
normals has to agree with that, and the places of all views with each other, or the object isn't imported.

With s the ray's unit direction through a pixel's centre, o its origin, b the camera's backward axis and z a depth along the
axis of view, the place is

    p = o + s z / (-s . b).                                                                                                 (1)
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.cameras import Camera

AGREEMENT = 0.85
"""The least share of a view's pixels whose normal is within 60 degrees of the surface's: smooth shading and bumps stay above,
one channel of a wrong sign or in the wrong place below it (a sphere: 0.61, three sides of a cube: 0.67)."""

_NEAR = 0.5
_FEWEST = 32
_OVERLAP = 0.8
_CLEARANCE = 0.03
_CLEAR = 0.1
_SAMPLE = 500


def positions_from_depth(camera: Camera, depth: np.ndarray) -> np.ndarray:
    """The places that pixels see, equation (1): float64[H, W, 3], world.

    Args:
      camera: of the view.
      depth: float[H, W], z along the axis of view, not along the ray, in world units.
    """
    origins, directions = camera.rays(depth.shape[0])
    along = -(directions @ camera.backward)
    return origins + directions * (depth / along)[..., None]


def seen_normals(
    camera: Camera, position: np.ndarray, mask: np.ndarray, stride: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Normals of the surface that places lie on, on the viewer's side, from differences across ``2 * stride`` pixels.

    Args:
      camera: of the view.
      position: float[H, W, 3], world.
      mask: bool[H, W], where a position is known.
      stride: pixels; more where positions are rounded.

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
    """The share of known pixels whose normal is within 60 degrees of the surface's; NaN where fewer than 32 are known.

    Args:
      normal: float[..., 3], unit.
      seen, known: as ``seen_normals`` gives them.
    """
    if known.sum() < _FEWEST:
        return float("nan")
    return float((np.sum(normal[known] * seen[known], axis=-1) > _NEAR).mean())


def check_free_space(cameras: Sequence[Camera], position: np.ndarray, mask: np.ndarray, place: str) -> None:
    """Raises if places that one view sees lie where another sees through: in its background or before what it sees.

    Args:
      cameras: of the views.
      position: float[V, H, W, 3], world.
      mask: bool[V, H, W].
      place: what the error names.
    """
    size = mask.shape[-1]
    nearest = []  # what each view sees first within a pixel of a place: the least depth among nine pixels
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
                    f"{place}: {clear.mean():.2f} of what view {view} sees lies where view {other} sees through; expected at "
                    f"most {_CLEAR}. A camera, its lens or the depth is of another convention than the format's, or of another "
                    "object."
                )


def check_overlap(one: np.ndarray, other: np.ndarray, message: str) -> None:
    """Raises with a message unless two masks bool[H, W] have an intersection over union of 0.8 or more."""
    union = int((one | other).sum())
    share = int((one & other).sum()) / union if union else 0.0
    if share < _OVERLAP:
        raise UserError(f"{message}: they overlap by {share:.2f} of their union; expected {_OVERLAP} or more.")


def unit(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Decoded normals at unit length, and which of them mean anything: (float64[..., 3], bool[...])."""
    vectors = np.asarray(vectors, np.float64)
    length = np.linalg.norm(vectors, axis=-1)
    usable = np.isfinite(length) & (length > 0.5)
    return np.where(usable[..., None], vectors / np.where(usable, length, 1)[..., None], 0), usable


def background_zero(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """float32 of a map float[..., 3], 0 outside the mask bool[...]."""
    return np.where(mask[..., None], values, 0).astype(np.float32)
