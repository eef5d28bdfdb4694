"""Ray casting against a mesh, and the geometry maps of its views, on the CPU.

Embree finds the face that a ray hits, in single precision. The point on the face, and with it position and normal, are then
computed in double precision, so that a position map projects back exactly onto its own pixel centres.
"""

import dataclasses
from collections.abc import Callable, Sequence

import embreex.mesh_construction
import embreex.rtcore_scene
import numpy as np

from realiz3d_jax.geometry.cameras import STANDARD, Camera
from realiz3d_jax.geometry.mesh import Mesh

_SHADOW_OFFSET = 1e-4
"""Distance of the start of a shadow ray from the surface, world units: well above Embree's single precision for a mesh of
extent 1 (6e-8) and well below a pixel (1.1/512 = 2e-3)."""


MOST_LAYERS = 32
"""Maximum number of transparent surfaces that a ray passes through."""

Visible = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(face int32[n], barycentric float64[n, 3]) to bool[n]: whether the surface is visible at these points of a mesh."""


@dataclasses.dataclass(frozen=True, eq=False)
class Hits:
    """First hits of n rays.

    Attributes:
      face: int32[n], index of the face, -1 without a hit.
      barycentric: float64[n, 3], weights of the face's corners, 0 without a hit.
      position: float64[n, 3], point on the ray, world, 0 without a hit.
      distance: float64[n], along the ray in units of the length of its direction, infinite without a hit.
    """

    face: np.ndarray
    barycentric: np.ndarray
    position: np.ndarray
    distance: np.ndarray

    def at(self, rays: np.ndarray) -> "Hits":
        """Hits of a selection of rays, int[m] or bool[n]."""
        return Hits(self.face[rays], self.barycentric[rays], self.position[rays], self.distance[rays])


class RayScene:
    """A mesh prepared for ray casting. It holds an Embree scene, so it cannot be pickled."""

    def __init__(self, mesh: Mesh):
        self._triangles = mesh.vertices[mesh.faces].astype(np.float64)
        first, second = self._triangles[:, 1] - self._triangles[:, 0], self._triangles[:, 2] - self._triangles[:, 0]
        self._edges = first, second
        cross = np.cross(first, second)
        self._normals = cross / np.linalg.norm(cross, axis=-1, keepdims=True)
        self._scene = embreex.rtcore_scene.EmbreeScene()
        embreex.mesh_construction.TriangleMesh(self._scene, self._triangles.astype(np.float32))

    @property
    def face_normals(self) -> np.ndarray:
        """float64[F, 3], unit normals from the winding of the faces."""
        return self._normals

    def intersect(self, origins: np.ndarray, directions: np.ndarray) -> Hits:
        """Finds the first hit of each ray.

        Args:
          origins: float[n, 3], world.
          directions: float[n, 3] or float[3], unit, world.
        """
        origins = np.asarray(origins, np.float64)
        directions = np.broadcast_to(np.asarray(directions, np.float64), origins.shape)
        face = self._scene.run(origins.astype(np.float32), directions.astype(np.float32)).astype(np.int32)
        barycentric, position = np.zeros_like(origins), np.zeros_like(origins)
        distance = np.full(len(origins), np.inf)
        hit = np.flatnonzero(face >= 0)
        weights = self._barycentric(face[hit], origins[hit], directions[hit])
        on_face = np.einsum("nc,ncd->nd", weights, self._triangles[face[hit]])
        along = np.einsum("nd,nd->n", on_face - origins[hit], directions[hit])
        barycentric[hit], distance[hit] = weights, along
        position[hit] = origins[hit] + along[:, None] * directions[hit]
        return Hits(face, barycentric, position, distance)

    def first_faces(self, origins: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Finds the first face that each of n parallel rays hits.

        Args:
          origins: float[n, 3], world.
          direction: float[3], unit, world.

        Returns:
          int32[n], index of the face, -1 without a hit.
        """
        origins = np.asarray(origins, np.float32)
        directions = np.broadcast_to(np.asarray(direction, np.float32), origins.shape)
        return self._scene.run(origins, np.ascontiguousarray(directions)).astype(np.int32)

    def occluded(self, points: np.ndarray, normals: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Tests whether the mesh occludes surface points in a direction.

        Args:
          points: float[n, 3], on the surface, world.
          normals: float[n, 3], geometric normals on the side of the surface to test; the ray starts slightly off the surface
            along them, to miss its own face.
          directions: float[n, 3] or float[3], towards the light or the camera, unit, world.

        Returns:
          bool[n].
        """
        points = np.asarray(points, np.float64)
        directions = np.broadcast_to(np.asarray(directions, np.float64), points.shape)
        starts = points + _SHADOW_OFFSET * (np.asarray(normals, np.float64) + directions)
        return self._scene.run(starts.astype(np.float32), directions.astype(np.float32)) >= 0

    def _barycentric(self, face: np.ndarray, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Barycentric coordinates in double precision (Möller and Trumbore), clamped to the face found in single precision."""
        first, second = self._edges[0][face], self._edges[1][face]
        across = np.cross(directions, second)
        determinant = np.einsum("nd,nd->n", first, across)
        determinant = np.where(np.abs(determinant) < 1e-30, 1e-30, determinant)
        offset = origins - self._triangles[face, 0]
        second_weight = np.einsum("nd,nd->n", offset, across) / determinant
        third_weight = np.einsum("nd,nd->n", directions, np.cross(offset, first)) / determinant
        weights = np.clip(np.stack([1 - second_weight - third_weight, second_weight, third_weight], axis=-1), 0, 1)
        return weights / weights.sum(axis=-1, keepdims=True)


@dataclasses.dataclass(frozen=True, eq=False)
class Maps:
    """Geometry seen at the pixel centres of V views.

    Attributes:
      position: float32[V, H, W, 3], world; 0 in the background.
      normal: float32[V, H, W, 3], unit, world; 0 in the background.
      mask: bool[V, H, W], whether the mesh covers the pixel's centre.
      face: int32[V, H, W], index of the visible face, -1 in the background.
    """

    position: np.ndarray
    normal: np.ndarray
    mask: np.ndarray
    face: np.ndarray


def surface_normals(mesh: Mesh, scene: RayScene, hits: Hits, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes the normals at hits, on the side of the viewer.

    The geometry alone decides the side, so faces seen from behind, and files in which winding and normals contradict each
    other, are handled correctly.

    Args:
      mesh: mesh that was hit.
      scene: its ray scene.
      hits: hits of n rays that all hit the mesh.
      direction: float64[n, 3] or float64[3], directions of the rays.

    Returns:
      (interpolated corner normals, geometric normals), float64[n, 3] each.
    """
    geometric = scene.face_normals[hits.face]
    away = np.sum(geometric * direction, axis=-1, keepdims=True) > 0
    geometric = np.where(away, -geometric, geometric)
    smooth = np.einsum("nc,ncd->nd", hits.barycentric, mesh.corner_normals[hits.face])
    length = np.linalg.norm(smooth, axis=-1, keepdims=True)
    smooth = np.where(length > 1e-6, smooth / np.maximum(length, 1e-6), geometric)
    inside = np.sum(smooth * geometric, axis=-1, keepdims=True) < 0
    return np.where(inside, -smooth, smooth), geometric


def past(positions: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Origins of rays that continue behind the surface points they hit.

    Args:
      positions: float64[n, 3], the points hit, world.
      directions: float64[n, 3], directions of the rays.

    Returns:
      float64[n, 3], world.
    """
    return positions + _SHADOW_OFFSET * directions


def _first_visible(scene: RayScene, hits: Hits, directions: np.ndarray, visible: Visible) -> Hits:
    """First visible hits of rays with the first hits ``hits``."""
    found = {field.name: getattr(hits, field.name).copy() for field in dataclasses.fields(Hits)}
    rays = np.flatnonzero(hits.face >= 0)
    for layer in range(MOST_LAYERS):
        rays = rays[~visible(found["face"][rays], found["barycentric"][rays])]
        if not len(rays):
            break
        starts = past(found["position"][rays], directions[rays])
        behind = scene.intersect(starts, directions[rays])
        step = np.einsum("nd,nd->n", starts - found["position"][rays], directions[rays])
        if layer == MOST_LAYERS - 1:
            behind.face[:] = -1
        for name in ("face", "barycentric", "position"):
            found[name][rays] = getattr(behind, name)
        found["distance"][rays] += step + behind.distance
        rays = rays[behind.face >= 0]
    return Hits(**found)


def render_maps(
    mesh: Mesh,
    size: int,
    cameras: Sequence[Camera] = STANDARD,
    visible: Visible | None = None,
) -> Maps:
    """Renders position, normal, mask and face at every pixel centre.

    Args:
      mesh: in the canonical frame.
      size: pixels along a side of a view.
      cameras: V cameras, one per view.
      visible: predicate for visible surface points; None if all are visible.
    """
    scene = RayScene(mesh)
    shape = (len(cameras), size * size)
    face = np.empty(shape, np.int32)
    position, normal = np.zeros((*shape, 3), np.float32), np.zeros((*shape, 3), np.float32)
    for view, camera in enumerate(cameras):
        origins, directions = camera.rays(size)
        directions = np.broadcast_to(directions, origins.shape).reshape(-1, 3)
        hits = scene.intersect(origins.reshape(-1, 3), directions)
        if visible:
            hits = _first_visible(scene, hits, directions, visible)
        seen = hits.face >= 0
        face[view], position[view] = hits.face, hits.position
        normal[view, seen], _ = surface_normals(mesh, scene, hits.at(seen), directions[seen])
    image = (len(cameras), size, size)
    face = face.reshape(image)
    return Maps(position.reshape(*image, 3), normal.reshape(*image, 3), face >= 0, face)
