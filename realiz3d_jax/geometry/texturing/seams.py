"""Seams: continues the gutter of each chart over the surface beyond its border, so that texture filtering is seamless.

A gutter texel (``texels.py``) initially represents the nearest point on its chart's border. Filtering would then read colours
that are constant beyond the border, different on the two sides of a seam. This module moves the texel to the surface point that
a flat continuation of the chart would reach: with b the point on the border, f the affine map from the UV plane to the plane of
b's face, and g the centre of the texel, the vector f(g) - b is walked over the surface and rotated at each edge into the plane
of the next face. A texel whose walk crosses a boundary of the surface, or an edge of three or more faces, keeps its border
point.
"""

import dataclasses

import numpy as np

from realiz3d_jax.geometry.mesh import Mesh
from realiz3d_jax.geometry.texturing.texels import Texels

_STEPS = 16
"""Maximum number of edges that a walk crosses."""

_TOLERANCE = 1e-6
"""Tolerance of barycentric weights: a point less than this outside a face counts as inside."""

_STRETCH = 4.0
"""Walks this many times longer than the mean scale of their face implies are skipped: the faces of the chart are needles."""


def neighbours(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Finds the neighbour at each edge of each face; duplicated vertices are merged by position.

    Args:
      mesh: in the canonical frame.

    Returns:
      face: int32[F, 3], the face across the edge from corner k to corner k + 1; -1 if there is none or more than one.
      side: int32[F, 3], the index of the shared edge in that face.
    """
    keys = np.round(mesh.vertices.astype(np.float64) * 1e6).astype(np.int64)
    _, place = np.unique(keys, axis=0, return_inverse=True)
    corner = place.reshape(-1)[mesh.faces]
    ends = np.sort(np.stack([corner, np.roll(corner, -1, axis=1)], axis=-1).reshape(-1, 2), axis=1)
    order = np.lexsort(ends.T)
    same = (ends[order[1:]] == ends[order[:-1]]).all(axis=1)
    # Keep pairs that are not part of a longer run and not edges of zero length.
    pair = same & ~np.append(same[1:], False) & ~np.append(False, same[:-1])
    first = np.flatnonzero(pair)
    first = first[ends[order[first], 0] != ends[order[first], 1]]
    beyond = np.full(ends.shape[0], -1, np.int64)
    beyond[order[first]], beyond[order[first + 1]] = order[first + 1], order[first]
    face, side = np.where(beyond < 0, -1, beyond // 3), np.where(beyond < 0, 0, beyond % 3)
    return face.reshape(-1, 3).astype(np.int32), side.reshape(-1, 3).astype(np.int32)


def continued(mesh: Mesh, uv: np.ndarray, texels: Texels) -> Texels:
    """Moves the gutter texels to the surface beyond their charts.

    Args:
      mesh: in the canonical frame.
      uv: float[F, 3, 2], texture coordinates that ``texels`` was made from.
      texels: texels of the mesh.

    Returns:
      A copy of ``texels``.
    """
    gutter = np.flatnonzero(~texels.inside)
    corners = mesh.vertices.astype(np.float64)[mesh.faces]
    face = texels.face[gutter].astype(np.int64)
    center = np.stack(np.divmod(texels.index[gutter], texels.size)[::-1], axis=-1) + 0.5
    weights, straight = _extended(np.asarray(uv, np.float64)[face] * texels.size, center)
    border = texels.barycentric[gutter].astype(np.float64)
    far = np.einsum("nc,ncd->nd", weights - border, corners[face])
    scale = np.sqrt(_double_area(corners[face]) / np.maximum(straight, 1e-12))
    reach = np.linalg.norm(center - np.einsum("nc,ncd->nd", border, uv[face] * texels.size), axis=-1)
    good = (straight > 1e-9) & (np.linalg.norm(far, axis=-1) < _STRETCH * reach * scale)
    gutter, face, weights = gutter[good], face[good], weights[good]
    end, weights = _walk(corners, neighbours(mesh), face, weights)
    moved = (end != face) & (weights.min(axis=1) > -_TOLERANCE)
    new_face, barycentric = texels.face.copy(), texels.barycentric.copy()
    weights = np.maximum(weights[moved], 0)
    new_face[gutter[moved]], barycentric[gutter[moved]] = end[moved], weights / weights.sum(axis=1, keepdims=True)
    return dataclasses.replace(texels, face=new_face, barycentric=barycentric)


def _walk(
    corners: np.ndarray, beyond: tuple[np.ndarray, np.ndarray], face: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Walks from points in the planes of faces, inside or outside the faces, to points on the surface.

    Args:
      corners: float64[F, 3, 3].
      beyond: result of ``neighbours``.
      face: int64[n].
      weights: float64[n, 3], weights of the face's corners, with sum 1 and any sign.

    Returns:
      (face int64[n], weights float64[n, 3]); negative weights mark walks that ended at a boundary or the limit of steps.
    """
    face, weights = face.copy(), weights.copy()
    walking = np.arange(len(face))
    for _ in range(_STEPS):
        apex = weights[walking].argmin(axis=1)
        side = (apex + 1) % 3
        following = beyond[0][face[walking], side]
        going = (weights[walking, apex] < -_TOLERANCE) & (following >= 0)
        walking, apex, side, following = walking[going], apex[going], side[going], following[going]
        if not len(walking):
            break
        here, there = face[walking], following.astype(np.int64)
        other = beyond[1][here, side]
        start, end = corners[here, side], corners[here, (side + 1) % 3]
        # Coordinates in the frame of the edge: along it from its start, and perpendicular to it.
        length = np.linalg.norm(end - start, axis=-1)
        axis = (end - start) / length[:, None]
        old, old_height = _in_frame(corners[here, apex] - start, axis)
        new, new_height = _in_frame(corners[there, (other + 2) % 3] - start, axis)
        overshoot = weights[walking, apex]
        along = weights[walking, (side + 1) % 3] * length + overshoot * old
        share = np.minimum(-overshoot * old_height / np.maximum(new_height, 1e-12), 1e3)
        at_end = (along - share * new) / length
        turned = np.linalg.norm(corners[there, other] - start, axis=-1) > 0.5 * length
        moved = np.empty((len(walking), 3))
        each = np.arange(len(walking))
        moved[each, (other + 2) % 3] = share
        moved[each, other] = np.where(turned, at_end, 1 - share - at_end)
        moved[each, (other + 1) % 3] = 1 - share - moved[each, other]
        face[walking], weights[walking] = there, moved
    return face, weights


def _in_frame(vector: np.ndarray, axis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of vectors float64[n, 3] along unit axes float64[n, 3] and perpendicular to them, float64[n] each."""
    along = np.einsum("nd,nd->n", vector, axis)
    return along, np.linalg.norm(vector - along[:, None] * axis, axis=-1)


def _extended(triangles: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Barycentric weights float64[n, 3], of any sign, of points in triangles float64[n, 3, 2], and twice their areas."""
    first, second, offset = (
        triangles[:, 1] - triangles[:, 0],
        triangles[:, 2] - triangles[:, 0],
        points - triangles[:, 0],
    )
    area = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    safe = np.where(area == 0, 1.0, area)
    one = (offset[:, 0] * second[:, 1] - offset[:, 1] * second[:, 0]) / safe
    two = (offset[:, 1] * first[:, 0] - offset[:, 0] * first[:, 1]) / safe
    return np.stack([1 - one - two, one, two], axis=-1), np.abs(area)


def _double_area(triangles: np.ndarray) -> np.ndarray:
    return np.linalg.norm(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=-1)
