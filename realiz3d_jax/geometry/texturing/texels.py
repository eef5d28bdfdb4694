"""Texels: the surface point that each texel of a texture represents.

A texture is T x T texels; row 0 is v = 0, and the centre of texel (row r, column c) is (u, v) = ((c + 0.5) / T,
(r + 0.5) / T), glTF's convention. A *chart* is a connected piece of surface in the UV plane. A texel whose centre lies in a
face represents that point of the face. Another texel within the *gutter* of a chart's border represents the nearest point on
that border, so that texture filtering near the border reads colours of the chart. Charts narrower than a texel have a gutter,
too, so no face is lost.

There are no loops over faces: each face or border edge is split into the rows of texels that it meets, and each row into
texels, as flat arrays.
"""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from realiz3d_jax.errors import UserError

_ROWS_AT_A_TIME = 1 << 18
"""Rows of faces or border edges that are split into texels at once, which bounds memory."""


@dataclasses.dataclass(frozen=True, eq=False)
class Texels:
    """The n texels that represent a surface point, ordered by index.

    Attributes:
      size: T, texels along a side of the texture.
      index: int32[n], row * T + column, increasing.
      face: int32[n], face that contains the point.
      barycentric: float32[n, 3], weights of the face's corners, in [0, 1] with sum 1.
      inside: bool[n], whether the centre of the texel lies in its face; the others are gutter.
    """

    size: int
    index: np.ndarray
    face: np.ndarray
    barycentric: np.ndarray
    inside: np.ndarray


def rasterise(uv: np.ndarray, size: int, gutter: float = 4.0) -> Texels:
    """Rasterises the faces of a mesh and the gutters of its charts.

    Where faces overlap in the UV plane, a texel belongs to the one with the lowest index.

    Args:
      uv: float[F, 3, 2], texture coordinates of the faces' corners, (u, v) in [0, 1].
      size: T, texels along a side of the texture.
      gutter: width of the gutter, texels.

    Raises:
      UserError: ``uv`` has another shape, or coordinates that are not finite or outside [0, 1].
    """
    uv = np.asarray(uv, np.float64)
    _check(uv)
    # Coordinates in texels, with integer centres. Rounding merges copies of a vertex that differ by float32 rounding in a file,
    # so that there is no border between adjacent faces.
    corners = np.round((uv * size - 0.5) * 4096) / 4096
    face = np.full(size * size, -1, np.int32)
    barycentric = np.zeros((size * size, 3), np.float32)
    inside = np.zeros(size * size, bool)
    # Reversed, because the last of equal indices wins in an assignment.
    for owner, row, column in _texels_of_faces(corners, size):
        owner, row, column = owner[::-1], row[::-1], column[::-1]
        index = row * size + column
        free = (face[index] < 0) | (face[index] > owner)
        owner, index = owner[free], index[free]
        face[index] = owner
        barycentric[index] = _barycentric(corners[owner], column[free], row[free])
        inside[index] = True
    distance = np.full(size * size, np.inf, np.float32)
    starts, edges, sides = _borders(corners)
    for edge, row, column in _texels_of_edges(edges, size, gutter):
        index = row * size + column
        outside = ~inside[index]
        edge, index, row, column = edge[outside], index[outside], row[outside], column[outside]
        along, squared = _nearest_on_edge(edges[edge], column, row)
        near = np.flatnonzero(squared < np.minimum(distance[index], gutter**2))
        near = near[np.argsort(-squared[near], kind="stable")]
        edge, index, along = edge[near], index[near], along[near]
        distance[index] = squared[near]
        face[index] = starts[edge]
        weights = np.zeros((len(edge), 3), np.float32)
        each = np.arange(len(edge))
        weights[each, sides[edge]] = 1 - along
        weights[each, (sides[edge] + 1) % 3] = along
        barycentric[index] = weights
    index = np.flatnonzero(face >= 0).astype(np.int32)
    return Texels(size, index, face[index], barycentric[index], inside[index])


def _check(uv: np.ndarray) -> None:
    if uv.ndim != 3 or uv.shape[1:] != (3, 2):
        raise UserError(f"uv: found shape {uv.shape}; expected [F, 3, 2], u and v of each face's corners.")
    if not np.isfinite(uv).all():
        raise UserError("uv: found coordinates that are not finite; expected numbers in [0, 1]. Unwrap the mesh again.")
    if uv.size and (uv.min() < -1e-6 or uv.max() > 1 + 1e-6):
        raise UserError(
            f"uv: found coordinates from {uv.min():.4g} to {uv.max():.4g}; expected [0, 1]. Repeating textures and several "
            "tiles cannot be baked: unwrap the mesh into one tile."
        )


def _texels_of_faces(corners: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields (face, row, column), int64[m] each, of texel centres in faces ``corners`` float64[F, 3, 2], borders included."""
    first = np.maximum(np.ceil(corners[..., 1].min(axis=1)), 0).astype(np.int64)
    last = np.minimum(np.floor(corners[..., 1].max(axis=1)), size - 1).astype(np.int64)
    for face, row in _expand(first, last, _ROWS_AT_A_TIME):
        triangle = corners[face]
        left, right = np.full(len(face), np.inf), np.full(len(face), -np.inf)
        for side in range(3):
            start, end = triangle[:, side], triangle[:, (side + 1) % 3]
            low, high = _clipped(start, end, row, row)
            left, right = np.minimum(left, low), np.maximum(right, high)
        yield from _columns(face, row, left, right, size)


def _texels_of_edges(
    edges: np.ndarray, size: int, margin: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields (edge, row, column), int64[m] each, of at least all texels within ``margin`` of ``edges`` float64[E, 2, 2]."""
    first = np.maximum(np.ceil(edges[..., 1].min(axis=1) - margin), 0).astype(np.int64)
    last = np.minimum(np.floor(edges[..., 1].max(axis=1) + margin), size - 1).astype(np.int64)
    for edge, row in _expand(first, last, _ROWS_AT_A_TIME // 8):
        low, high = _clipped(edges[edge, 0], edges[edge, 1], row - margin, row + margin)
        yield from _columns(edge, row, low - margin, high + margin, size)


def _columns(
    owner: np.ndarray, row: np.ndarray, left: np.ndarray, right: np.ndarray, size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields the texels of spans of rows: integer columns in [left, right], float64[m]."""
    filled = left <= right
    owner, row, left, right = owner[filled], row[filled], left[filled], right[filled]
    first = np.maximum(np.ceil(left), 0).astype(np.int64)
    last = np.minimum(np.floor(right), size - 1).astype(np.int64)
    for span, column in _expand(first, last, len(owner)):
        yield owner[span], row[span], column


def _expand(first: np.ndarray, last: np.ndarray, results: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (range, number), int64[m], for the integers first..last of each range, about ``results`` at a time."""
    counts = np.maximum(last - first + 1, 0)
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    cuts = np.searchsorted(ends, np.arange(results, total, max(results, 1)), side="left") + 1 if results else []
    bounds = np.unique([0, *cuts, len(counts)])
    for start, stop in itertools.pairwise(bounds):
        count = counts[start:stop]
        owner = np.repeat(np.arange(start, stop), count)
        offset = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
        yield owner, first[owner] + offset


def _clipped(start: np.ndarray, end: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Range of x of segments start-end, float64[m, 2], within low <= y <= high; (inf, -inf) if empty."""
    rise = end[:, 1] - start[:, 1]
    level = rise == 0
    slope = np.where(level, 1.0, rise)
    one, two = (low - start[:, 1]) / slope, (high - start[:, 1]) / slope
    enter, leave = np.maximum(np.minimum(one, two), 0.0), np.minimum(np.maximum(one, two), 1.0)
    across = (start[:, 1] >= low) & (start[:, 1] <= high)
    enter, leave = np.where(level, 0.0, enter), np.where(level, np.where(across, 1.0, -1.0), leave)
    run = end[:, 0] - start[:, 0]
    one, two = start[:, 0] + enter * run, start[:, 0] + leave * run
    met = enter <= leave
    return np.where(met, np.minimum(one, two), np.inf), np.where(met, np.maximum(one, two), -np.inf)


def _barycentric(triangles: np.ndarray, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Barycentric weights float64[m, 3] of points inside triangles float64[m, 3, 2]."""
    first, second = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    x, y = column - triangles[:, 0, 0], row - triangles[:, 0, 1]
    area = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    area = np.where(area == 0, 1e-30, area)
    weights = np.empty((len(x), 3))
    weights[:, 1] = (x * second[:, 1] - y * second[:, 0]) / area
    weights[:, 2] = (y * first[:, 0] - x * first[:, 1]) / area
    weights[:, 0] = 1 - weights[:, 1] - weights[:, 2]
    np.clip(weights, 0, 1, out=weights)
    return weights / weights.sum(axis=1, keepdims=True)


def _borders(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges of faces without a neighbour in the UV plane: (face int64[E], edge float64[E, 2, 2], corner int64[E])."""
    edges = np.stack([corners, np.roll(corners, -1, axis=1)], axis=2).reshape(-1, 4)
    swapped = (edges[:, 0] > edges[:, 2]) | ((edges[:, 0] == edges[:, 2]) & (edges[:, 1] > edges[:, 3]))
    keys = np.where(swapped[:, None], edges[:, [2, 3, 0, 1]], edges)
    order = np.lexsort(keys.T)
    new = np.ones(len(order) + 1, bool)
    new[1:-1] = (keys[order[1:]] != keys[order[:-1]]).any(axis=1)
    alone = np.sort(order[new[1:] & new[:-1]])
    # A face of zero area in the UV plane is covered by its edges alone.
    one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    flat = np.flatnonzero(one[:, 0] * two[:, 1] == one[:, 1] * two[:, 0])
    alone = np.union1d(alone, (3 * flat[:, None] + np.arange(3)).reshape(-1))
    return alone // 3, edges[alone].reshape(-1, 2, 2), alone % 3


def _nearest_on_edge(edges: np.ndarray, column: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest points on edges float64[m, 2, 2]: (position in [0, 1] along the edge, squared distance), float64[m] each."""
    run = edges[:, 1] - edges[:, 0]
    x, y = column - edges[:, 0, 0], row - edges[:, 0, 1]
    length = run[:, 0] ** 2 + run[:, 1] ** 2
    along = np.clip((x * run[:, 0] + y * run[:, 1]) / np.maximum(length, 1e-30), 0, 1)
    return along, (x - along * run[:, 0]) ** 2 + (y - along * run[:, 1]) ** 2
