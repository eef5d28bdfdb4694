"""Fills unseen surface by diffusing colours over the surface itself, not over the UV plane.

Each face carries a lattice of (n + 1)(n + 2) / 2 points, finer on larger faces. Coinciding points are merged, so the lattice is
independent of charts and seams. Seen texels give their colour to the nearest point. The other points get the harmonic
continuation, which solves

    sum_j w_ij (u_j - u_i) = 0,     w_ij = (cot a_ij + cot b_ij) / 2,                                       (1)

with the cotangents of the angles opposite an edge (Pinkall and Polthier 1993). Cotangents below ``_LEAST_COTANGENT`` are raised
to it, so that colours stay in the range of the seen ones. Unseen texels interpolate between the points of their face.

The lattice is coarser than the texels, so its colours are smoother than the seen ones and would start at a visible line. Within
a radius R of the seen texels, two spacings of the lattice, the colour is therefore

    f(d / R) sum_k c_k / d_k² / sum_k 1 / d_k² + (1 - f(d / R)) u,     f(t) = (1 - t)² (1 + 2 t),                       (2)

with d_k the distances to the nearest texels along the border of the seen region, d the smallest of them, c_k their colours
(Shepard 1968), and u the colour of the lattice. Texels with another surface normal count as farther away, so that the two sides
of a thin wall do not mix.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
import scipy.sparse
import scipy.sparse.csgraph
import scipy.sparse.linalg
import scipy.spatial

from realiz3d_jax.geometry.mesh import Mesh
from realiz3d_jax.geometry.texturing.chunks import chunks, padded, table
from realiz3d_jax.geometry.texturing.texels import Texels

_Indices = np.ndarray | jax.Array

_POINTS = 40_000
"""Approximate number of lattice points, unless the mesh itself has more vertices."""

_LEAST_COTANGENT = 0.05

_ON_POINT = 1e-4
"""Distance, in cells, at which a position coincides with a lattice point; barycentric weights are in single precision."""

_NEAREST = 8
"""Number of nearest texels along the border of the seen region in (2)."""

_REACH = 2.0
"""R of (2), in spacings of the lattice."""

_ASIDE = 0.6
"""Extra distance, in units of R, per unit of difference between normals. The other side of a wall, two units, is out of reach;
the other side of a right angle is not."""

_UNKNOWN_COLOR = 0.2
"""Colour of a mesh that no view sees at all: middle grey, linear light."""


def diffuse(mesh: Mesh, texels: Texels, color: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Computes colours for the unseen texels.

    A connected component without any seen texel gets the colours that are nearest to it in space.

    Args:
      mesh: in the canonical frame.
      texels: texels of the mesh.
      color: float32[n, 3], colours of the texels; only those of seen texels are read.
      seen: bool[n].

    Returns:
      float32[m, 3], colours of the unseen texels, in their order.
    """
    unseen = np.flatnonzero(~seen)
    if not len(unseen) or not seen.any():
        return np.full((len(unseen), 3), _UNKNOWN_COLOR, np.float32)
    lattice = _lattice(mesh)
    source = np.flatnonzero(seen)
    points, weights = lattice.locate(texels.face[source], texels.barycentric[source])
    nearest = points[np.arange(len(source)), weights.argmax(axis=1)]
    count = np.bincount(nearest, minlength=len(lattice.position))
    known = count > 0
    value = np.zeros((len(count), 3))
    for channel in range(3):
        total = np.bincount(nearest, color[source, channel], minlength=len(count))
        value[known, channel] = total[known] / count[known]
    _, component = scipy.sparse.csgraph.connected_components(lattice.weights, directed=False)
    reached = np.bincount(component, known, minlength=component.max() + 1) > 0
    alone = np.flatnonzero(~reached[component])
    if len(alone):
        colored = np.flatnonzero(known)
        _, closest = scipy.spatial.cKDTree(lattice.position[colored]).query(lattice.position[alone])
        value[alone] = value[colored[closest]]
        known[alone] = True
    free = np.flatnonzero(~known)
    if len(free):
        rows = lattice.weights[free]
        system = scipy.sparse.diags(np.asarray(rows.sum(axis=1)).reshape(-1)) - rows[:, free]
        right = rows[:, np.flatnonzero(known)] @ value[known]
        solver = scipy.sparse.linalg.splu(
            system.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )
        value[free] = solver.solve(right)
    points, weights = lattice.locate(texels.face[unseen], texels.barycentric[unseen])
    filled = np.einsum("nk,nkc->nc", weights, value[points]).astype(np.float32)
    # Most texels are far from the seen ones; testing their lattice points is cheaper.
    tree = scipy.spatial.cKDTree(lattice.position[count > 0])
    beyond = (_REACH + 3) * lattice.spacing
    close = np.isfinite(tree.query(lattice.position, distance_upper_bound=beyond)[0])
    near = np.flatnonzero(close[points].any(axis=1))
    filled[near] = _feathered(mesh, texels, color, seen, unseen[near], filled[near], _REACH * lattice.spacing)
    return filled


def _feathered(
    mesh: Mesh,
    texels: Texels,
    color: np.ndarray,
    seen: np.ndarray,
    target: np.ndarray,
    filled: np.ndarray,
    reach: float,
) -> np.ndarray:
    """Blends filled colours into the seen ones, by (2).

    Args:
      mesh: as in ``diffuse``.
      texels: as in ``diffuse``.
      color: as in ``diffuse``.
      seen: as in ``diffuse``.
      target: int[m], unseen texels.
      filled: float32[m, 3], their colours from the lattice.
      reach: R, world units.

    Returns:
      float32[m, 3].
    """
    size, filled = texels.size, filled.copy()
    unseen = np.zeros(size * size, bool)
    unseen[texels.index] = ~seen
    beside = scipy.ndimage.binary_dilation(unseen.reshape(size, size), np.ones((3, 3), bool)).reshape(-1)
    source = np.flatnonzero(seen & beside[texels.index])
    if not len(source):
        return filled
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals *= _ASIDE * reach / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-30)

    def places(of: np.ndarray) -> np.ndarray:
        face = texels.face[of]
        position = np.einsum("nc,ncd->nd", texels.barycentric[of], corners[face])
        return np.concatenate([position, normals[face]], axis=1)

    tree = scipy.spatial.cKDTree(places(source))
    for part in chunks(len(target)):
        place = places(target[part])
        close = np.flatnonzero(np.isfinite(tree.query(place, distance_upper_bound=reach, workers=-1)[0]))
        distance, found = tree.query(place[close], np.arange(1, _NEAREST + 1), distance_upper_bound=reach, workers=-1)
        weight = 1 / np.maximum(distance, 1e-9) ** 2  # 0 for missing neighbours, which are at infinity
        taken = color[source[np.minimum(found, len(source) - 1)]]
        joined = np.einsum("nk,nkc->nc", weight, taken) / weight.sum(axis=1, keepdims=True)
        t = distance[:, :1] / reach
        share = (1 - t) ** 2 * (1 + 2 * t)
        old = filled[part]
        old[close] = share * joined + (1 - share) * old[close]
    return filled


@jax.jit
def push_pull(image: jax.Array, known: jax.Array) -> jax.Array:
    """Fills unknown pixels with means of known ones around them, from successively coarser copies of the image.

    Args:
      image: float32[H, W, C].
      known: bool[H, W], the pixels to keep.

    Returns:
      float32[H, W, C]; zeros if no pixel is known.
    """
    height, width = known.shape
    masked = jnp.where(known[..., None], image, 0.0)
    if height == width == 1:
        return masked
    rows, columns = -(-height // 2), -(-width // 2)
    even = ((0, height % 2), (0, width % 2))
    count = jnp.pad(known, even).reshape(rows, 2, columns, 2).sum(axis=(1, 3))
    total = jnp.pad(masked, (*even, (0, 0))).reshape(rows, 2, columns, 2, -1).sum(axis=(1, 3))
    coarse = push_pull(total / jnp.maximum(count, 1)[..., None], count > 0)
    spread = coarse.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    return jnp.where(known[..., None], image, spread)


@dataclasses.dataclass(frozen=True, eq=False)
class _Lattice:
    """M points on the surface and the weights between them.

    Attributes:
      position: float64[M, 3], world.
      weights: sparse symmetric float64[M, M], w_ij of (1).
      divisions: int32[F], n of each face.
      first: int32[F], start of each face's points in ``point``, ordered by i, then j; (i, j) has the barycentric weights
        (i, j, n - i - j) / n.
      point: int32, indices into the M points.
      spacing: approximate distance between points, world units.
    """

    position: np.ndarray
    weights: scipy.sparse.csr_matrix
    divisions: np.ndarray
    first: np.ndarray
    point: np.ndarray
    spacing: float

    def locate(self, face: np.ndarray, barycentric: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The three lattice points around positions on faces, int32[n, 3], and their weights, float32[n, 3], with sum 1."""
        points, weights = np.empty((len(face), 3), np.int32), np.empty((len(face), 3), np.float32)
        lattice = [jnp.asarray(table(array)) for array in (self.divisions, self.first, self.point)]
        for part in chunks(len(face)):
            found = _locate(*lattice, padded(face[part]), padded(barycentric[part]))
            for whole, chunk in zip((points, weights), found, strict=True):
                whole[part] = np.asarray(chunk)[: part.stop - part.start]
        return points, weights


@jax.jit
def _locate(
    divisions: jax.Array, first: jax.Array, point: jax.Array, face: jax.Array, barycentric: jax.Array
) -> tuple[jax.Array, jax.Array]:
    divisions, first = divisions[face], first[face]
    place = barycentric * divisions[:, None]
    corner = jnp.floor(place + _ON_POINT).astype(jnp.int32)
    # The three sum to n on a lattice point; any cell that touches it is correct.
    largest = jax.nn.one_hot(corner.argmax(axis=1), 3, dtype=jnp.int32)
    corner = corner - largest * (corner.sum(axis=1) >= divisions)[:, None]
    # A cell is oriented like the face, or upside down.
    upright = divisions - corner.sum(axis=1) == 1
    fraction = jnp.clip(place - corner, 0, 1)
    weights = jnp.where(upright[:, None], fraction, 1 - fraction)
    points = []
    for side in range(3):
        i, j = (corner[:, axis] + ((axis == side) == upright) for axis in (0, 1))
        points.append(point[first + _row_start(i, divisions) + j])
    return jnp.stack(points, axis=1), weights / weights.sum(axis=1, keepdims=True)


def _row_start(i: _Indices, divisions: _Indices) -> _Indices:
    """Number of points in a face's lattice with a first index below i."""
    return i * (divisions + 1) - i * (i - 1) // 2


def _lattice(mesh: Mesh) -> _Lattice:
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    edges = np.roll(corners, -1, axis=1) - np.roll(corners, 1, axis=1)  # opposite each corner
    double_area = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=-1)
    cotangent = np.stack(
        [-np.einsum("fd,fd->f", edges[:, (side + 1) % 3], edges[:, (side + 2) % 3]) for side in range(3)], axis=1
    )
    cotangent = np.maximum(cotangent / np.maximum(double_area, 1e-30)[:, None], _LEAST_COTANGENT)
    # A face of area A has about A / spacing² points. The area, unlike the edges, gives slivers few points.
    spacing = np.sqrt(double_area.sum() / 2 / _POINTS)
    divisions = 2 ** np.maximum(np.round(np.log2(np.sqrt(double_area) / spacing + 1e-30)), 0).astype(np.int64)
    counts = (divisions + 1) * (divisions + 2) // 2
    first = np.cumsum(counts) - counts
    position, edge_ends, edge_weights = np.empty((counts.sum(), 3)), [], []
    for n in np.unique(divisions):
        faces = np.flatnonzero(divisions == n)
        i, j = np.array([(i, j) for i in range(n + 1) for j in range(n + 1 - i)]).T
        local = np.stack([i, j, n - i - j], axis=1) / n
        position[first[faces][:, None] + np.arange(len(i))] = np.einsum("lk,fkd->fld", local, corners[faces])
        for ends, side in _cell_edges(i, j, n):
            edge_ends.append((first[faces][:, None, None] + ends).reshape(-1, 2))
            edge_weights.append(np.repeat(cotangent[faces, side] / 2, len(ends)))
    keys = np.round(position * 1e6).astype(np.int64) + (1 << 20)
    keys = (keys[:, 0] << 42) | (keys[:, 1] << 21) | keys[:, 2]
    _, kept, point = np.unique(keys, return_index=True, return_inverse=True)
    ends = point[np.concatenate(edge_ends)]
    shape = (len(kept), len(kept))
    half = scipy.sparse.coo_matrix((np.concatenate(edge_weights), (ends[:, 0], ends[:, 1])), shape).tocsr()
    indices = (array.astype(np.int32) for array in (divisions, first, point))
    return _Lattice(position[kept], (half + half.T).tocsr(), *indices, spacing)


def _cell_edges(i: np.ndarray, j: np.ndarray, n: int) -> list[tuple[np.ndarray, int]]:
    """Edges of all cells of a lattice, grouped by the opposite corner of the face: (int64[e, 2], corner)."""
    corner = np.stack([i, j, n - i - j], axis=1)

    def index(points: np.ndarray) -> np.ndarray:
        return _row_start(points[:, 0], n) + points[:, 1]

    found = []
    unit = np.eye(3, dtype=np.int64)
    for side in range(3):
        one, two = unit[(side + 1) % 3], unit[(side + 2) % 3]
        upright = corner[corner[:, 2] >= 1] - unit[2]
        turned = corner[corner[:, 2] >= 2] - 2 * unit[2]
        for cells, sign, shift in ((upright, 1, 0), (turned, -1, 1)):
            start, end = cells + shift + sign * one, cells + shift + sign * two
            found.append((np.stack([index(start), index(end)], axis=1), side))
    return found
