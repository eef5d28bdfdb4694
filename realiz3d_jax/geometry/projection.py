"""Correspondence between the pixels of several views of a mesh, and blending of their colours.

Back-projection to the mesh and re-rendering are one step: the surface point of every pixel is projected into the other views,
and their colours are blended. There is no intermediate texture, so nothing is lost to its resolution, seams or in-painting.
Visibility is exact: it is decided by shadow rays, not by a threshold on depth.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from realiz3d_jax.geometry.cameras import STANDARD, Camera
from realiz3d_jax.geometry.mesh import Mesh
from realiz3d_jax.geometry.render import RayScene, surface_normals

MINIMUM_COSINE = 0.2
"""Smallest cosine, between surface normal and direction to the camera, at which a view sees a point; at a smaller one, a pixel
covers more than five times its area of the surface."""


@dataclasses.dataclass(frozen=True, eq=False)
class Correspondence:
    """Projections of the surface point of each pixel (source view, first V) into every view (target view, second V).

    Attributes:
      mask: bool[V, H, W], foreground: whether the mesh covers the centre of the pixel.
      cosine: float32[V, V, H, W], between the normal and the direction to the target camera; 0 where the target view does not
        see the point. A pixel's own view always sees it, at any angle.
      taps: int32[V, V, H, W, 4], the four pixels (row * W + column) of the target view around the projected point.
      tap_weights: float32[V, V, H, W, 4], their bilinear weights, with sum 1 where ``cosine`` is not 0, else 0. Pixels of
        the background, or of a surface in front of or behind that of the point, have weight 0.
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
    """Computes the correspondence between the views of a mesh.

    Args:
      mesh: in the canonical frame.
      size: pixels along a side of a view.
      cameras: V cameras outside the mesh, one per view.
      minimum_cosine: smallest cosine at which another view sees a point.
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
    """Blends the colours of the views at the surface point of each pixel, weighted by cosine.

    Args:
      where: correspondence of the views.
      images: [V, H, W, C], any scale.
      others_only: whether to exclude the pixel's own view.

    Returns:
      colour: float32[V, H, W, C], 0 where no view sees the point.
      seen: bool[V, H, W], whether any view sees the point.
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
    """Surface seen at the n = H W pixel centres of one view.

    ``mask``: bool[n]; ``position``, ``normal`` (smooth), ``facet`` (geometric normal) and ``toward`` (direction to the camera
    of the view): float64[n, 3].
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
    """Cosine, taps and weights of a view at its own pixels: each pixel is its own tap."""
    count = size * size
    cosine = np.where(source.mask, np.maximum(_cosines(source.normal, source.toward), 1e-3), 0.0)
    taps = np.repeat(np.arange(count)[:, None], 4, axis=1)
    weights = np.zeros((count, 4))
    weights[:, 0] = source.mask
    return cosine, taps, weights


def _look(
    scene: RayScene, source: _Surface, target: _Surface, camera: Camera, size: int, minimum_cosine: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cosine, taps and weights of the view ``target``, of ``camera``, at the surface points of ``source``."""
    count = size * size
    cosine, taps, weights = np.zeros(count), np.zeros((count, 4), np.int64), np.zeros((count, 4))
    toward = camera.toward(source.position)
    seen_at = _cosines(source.normal, toward)
    # The facet must face the camera, too; its normal differs from the smooth one on coarse meshes.
    point = np.flatnonzero(source.mask & (seen_at >= minimum_cosine) & (_cosines(source.facet, toward) > 0))
    point = point[~scene.occluded(source.position[point], source.facet[point], toward[point])]
    pixels, depth = camera.project(source.position[point], size)
    inside = np.all((pixels >= 0) & (pixels < size), axis=-1)
    point, pixels, depth = point[inside], pixels[inside], depth[inside]
    indices, bilinear = _bilinear(pixels, size)
    # A tap shows the same surface if it lies within the width of a pixel of the point's tangent plane.
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
    """Cosines of the angles between unit vectors, float64[n, 3] each: float64[n]."""
    return np.einsum("nd,nd->n", normals, directions)


def _bilinear(pixels: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The four pixels around places (column, row) float64[n, 2], and their weights: int64[n, 4], float64[n, 4]."""
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
