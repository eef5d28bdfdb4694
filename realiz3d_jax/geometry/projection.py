"""Which pixels of the views show the same piece of surface, and what colour the other views give it.

This is back-projection to the mesh and re-rendering in one step: the surface point of every pixel is projected into the
other views, and their colours are blended. No texture lies between, so nothing is lost to its resolution, its seams or
its in-painting, and visibility is exact: a shadow ray, not a threshold on depth.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from realiz3d_jax.geometry.cameras import STANDARD, Camera
from realiz3d_jax.geometry.mesh import Mesh
from realiz3d_jax.geometry.render import RayScene, surface_normals

MINIMUM_COSINE = 0.2
"""A view sees a point if the angle between the surface normal and the direction to the camera has at least this cosine:
below it, one pixel covers five of the surface."""


@dataclasses.dataclass(frozen=True, eq=False)
class Correspondence:
    """Where the surface points of each pixel are seen. The first V is the pixel's own view, the second the view looking.

    Attributes:
      mask: bool[V, H, W], the foreground: whether the pixel's centre sees the mesh.
      cosine: float32[V, V, H, W], between normal and direction to the looking camera; 0 where it does not see the point.
        A pixel's own view always sees it, at whatever angle.
      taps: int32[V, V, H, W, 4], the four pixels (row * W + column) of the looking view round the projected point.
      tap_weights: float32[V, V, H, W, 4], their bilinear weights, with sum 1 where ``cosine`` is not 0, else 0. Pixels of
        the background, or of a surface before or behind the point's own, have weight 0.
    """

    mask: np.ndarray
    cosine: np.ndarray
    taps: np.ndarray
    tap_weights: np.ndarray


def correspondence(
    mesh: Mesh,
    size: int,
    cameras: Sequence[Camera] = STANDARD,
    minimum_cosine: float = MINIMUM_COSINE,
) -> Correspondence:
    """The correspondence between the views of a mesh, of ``size`` pixels a side.

    Args:
      mesh: in the canonical frame.
      size: pixels along a side of a view.
      cameras: one for each view, outside the mesh.
      minimum_cosine: what counts as seen by another view.
    """
    scene = RayScene(mesh)
    surfaces = [_surface(mesh, scene, camera, size) for camera in cameras]
    seen = [
        [
            _own(source, size) if source is target else _look(scene, source, target, camera, size, minimum_cosine)
            for target, camera in zip(surfaces, cameras, strict=True)
        ]
        for source in surfaces
    ]
    shape = (len(cameras), len(cameras), size, size)
    cosine, taps, weights = (np.stack([np.stack(row) for row in _nth(seen, index)]) for index in range(3))
    return Correspondence(
        mask=np.stack([surface.mask for surface in surfaces]).reshape(-1, size, size),
        cosine=cosine.reshape(shape).astype(np.float32),
        taps=taps.reshape(*shape, 4).astype(np.int32),
        tap_weights=weights.reshape(*shape, 4).astype(np.float32),
    )


def blend(where: Correspondence, images: np.ndarray, *, others_only: bool) -> tuple[np.ndarray, np.ndarray]:
    """The colour that the views together give to each pixel's surface point, weighted by cosine.

    Args:
      where: the correspondence of these views.
      images: [V, H, W, C], any scale.
      others_only: leave out the pixel's own view.

    Returns:
      colour: float32[V, H, W, C], 0 where no view sees the point.
      seen: bool[V, H, W], whether any of the views does.
    """
    views, _, height, width = where.cosine.shape
    flat = np.asarray(images, np.float32).reshape(views, height * width, -1)
    weights = where.cosine.copy()
    if others_only:
        weights[np.arange(views), np.arange(views)] = 0.0
    total = weights.sum(axis=1)
    colour = np.zeros((views, height, width, flat.shape[-1]), np.float32)
    for target in range(views):
        gathered = np.einsum("vhwtc,vhwt->vhwc", flat[target][where.taps[:, target]], where.tap_weights[:, target])
        colour += weights[:, target, ..., None] * gathered
    return colour / np.maximum(total, 1e-9)[..., None], total > 0


@dataclasses.dataclass(frozen=True, eq=False)
class _Surface:
    """What each pixel centre of one view sees, flattened: n = H W pixels.

    ``mask``: bool[n]; ``position``, ``normal`` (smooth), ``facet`` (geometric) and ``toward``, the direction to the view's own
    camera: float64[n, 3].
    """

    mask: np.ndarray
    position: np.ndarray
    normal: np.ndarray
    facet: np.ndarray
    toward: np.ndarray


def _surface(mesh: Mesh, scene: RayScene, camera: Camera, size: int) -> _Surface:
    origins, directions = camera.rays(size)
    directions = np.broadcast_to(directions, origins.shape).reshape(-1, 3)
    hits = scene.intersect(origins.reshape(-1, 3), directions)
    normal, facet = surface_normals(mesh, scene, hits, directions)
    return _Surface(hits.face >= 0, hits.position, normal, facet, -directions)


def _own(source: _Surface, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cosine, taps and weights of a view looking at its own pixels: each pixel is its own tap."""
    count = size * size
    cosine = np.where(source.mask, np.maximum(_cosines(source.normal, source.toward), 1e-3), 0.0)
    taps = np.repeat(np.arange(count)[:, None], 4, axis=1)
    weights = np.zeros((count, 4))
    weights[:, 0] = source.mask
    return cosine, taps, weights


def _look(
    scene: RayScene, source: _Surface, target: _Surface, camera: Camera, size: int, minimum_cosine: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cosine, taps and weights of the view ``target``, of ``camera``, looking at the pixels of ``source``."""
    count = size * size
    cosine, taps, weights = np.zeros(count), np.zeros((count, 4), np.int64), np.zeros((count, 4))
    toward = camera.toward(source.position)
    seen_at = _cosines(source.normal, toward)
    # The facet must face the camera too: where a coarse mesh is shaded smoothly, the two normals differ.
    point = np.flatnonzero(source.mask & (seen_at >= minimum_cosine) & (_cosines(source.facet, toward) > 0))
    point = point[~scene.occluded(source.position[point], source.facet[point], toward[point])]
    pixels, depth = camera.project(source.position[point], size)
    inside = np.all((pixels >= 0) & (pixels < size), axis=-1)
    point, pixels, depth = point[inside], pixels[inside], depth[inside]
    indices, bilinear = _bilinear(pixels, size)
    # A tap counts if it shows the same surface: it lies within a pixel's width of the point's tangent plane.
    offset = target.position[indices] - source.position[point, None]
    height = np.abs(np.einsum("ntd,nd->nt", offset, source.normal[point]))
    bilinear = bilinear * (target.mask[indices] & (height < camera.width_at(depth)[:, None] / size))
    total = bilinear.sum(axis=-1)
    found = total > 1e-6
    point = point[found]
    cosine[point] = seen_at[point]
    taps[point] = indices[found]
    weights[point] = bilinear[found] / total[found, None]
    return cosine, taps, weights


def _cosines(normals: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Of the angles between unit vectors: float64[n] of float64[n, 3] twice."""
    return np.einsum("nd,nd->n", normals, directions)


def _bilinear(pixels: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The four pixels round each place and their weights: int64[n, 4], float64[n, 4], of (column, row) float64[n, 2]."""
    place = pixels - 0.5
    corner = np.floor(place).astype(np.int64)
    fraction = place - corner
    indices, weights = [], []
    for down in (0, 1):
        for right in (0, 1):
            column, row = (np.clip(corner[:, axis] + step, 0, size - 1) for axis, step in ((0, right), (1, down)))
            indices.append(row * size + column)
            across, along = (np.abs(1 - step - fraction[:, axis]) for axis, step in ((0, right), (1, down)))
            weights.append(across * along)
    return np.stack(indices, axis=-1), np.stack(weights, axis=-1)


def _nth(seen: list[list[tuple[np.ndarray, ...]]], index: int) -> list[list[np.ndarray]]:
    return [[look[index] for look in row] for row in seen]
