"""Rays against a mesh, and the geometry maps of its views, on the CPU.

Embree finds the face that a ray hits, in single precision; everything after that, the place on the face and so the
position and the normal, is computed again in double precision, so that a position map projects back onto its own
pixel centres exactly.
"""

import dataclasses
from collections.abc import Callable, Sequence

import embreex.mesh_construction
import embreex.rtcore_scene
import numpy as np

from realiz3d_jax.geometry.cameras import STANDARD, Camera
from realiz3d_jax.geometry.mesh import Mesh

_SHADOW_OFFSET = 1e-4
"""How far, in world units, a shadow ray starts from the surface: well above Embree's single precision for a mesh of
extent 1 (6e-8) and well below a pixel (1.1/512 = 2e-3)."""


MOST_LAYERS = 32
"""Surfaces that a ray goes through, at most, where they can be seen through."""

Visible = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(face int32[n], barycentric float64[n, 3]) to bool[n]: whether anything can be seen at these places of a mesh."""


@dataclasses.dataclass(frozen=True, eq=False)
class Hits:
    """What rays hit first.

    Attributes:
      face: int32[n], index of the face, -1 where nothing is hit.
      barycentric: float64[n, 3], weights of the face's corners, zeros where nothing is hit.
      position: float64[n, 3], the place on the ray, world; zeros where nothing is hit.
      distance: float64[n], along the ray in units of its direction's length; infinite where nothing is hit.
    """

    face: np.ndarray
    barycentric: np.ndarray
    position: np.ndarray
    distance: np.ndarray

    def at(self, rays: np.ndarray) -> "Hits":
        """The hits of some of the rays: int[m] or bool[n]."""
        return Hits(self.face[rays], self.barycentric[rays], self.position[rays], self.distance[rays])


class RayScene:
    """A mesh made ready for rays. It holds an Embree scene: make it where it is used, it can't be pickled."""

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
        """float64[F, 3], unit, by the winding of the faces."""
        return self._normals

    def intersect(self, origins: np.ndarray, directions: np.ndarray) -> Hits:
        """The first hit of each ray.

        Args:
          origins: float[n, 3], world.
          directions: float[n, 3] or float[3], world, unit length.
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
        """The face that each ray hits first, -1 where there is none: int32[n] of float[n, 3] and float[3], unit length."""
        origins = np.asarray(origins, np.float32)
        directions = np.broadcast_to(np.asarray(direction, np.float32), origins.shape)
        return self._scene.run(origins, np.ascontiguousarray(directions)).astype(np.int32)

    def occluded(self, points: np.ndarray, normals: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Whether something of the mesh lies between each surface point and infinity.

        Args:
          points: float[n, 3] on the surface, world.
          normals: float[n, 3], geometric normals on the side of the surface that is asked about; the ray starts a
            little off the surface along them, so that it misses the face that it starts from.
          directions: float[n, 3] or float[3], world, towards the light or the camera, unit length.

        Returns:
          bool[n].
        """
        points = np.asarray(points, np.float64)
        directions = np.broadcast_to(np.asarray(directions, np.float64), points.shape)
        starts = points + _SHADOW_OFFSET * (np.asarray(normals, np.float64) + directions)
        return self._scene.run(starts.astype(np.float32), directions.astype(np.float32)) >= 0

    def _barycentric(self, face: np.ndarray, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Möller and Trumbore's solution in double precision, kept inside the face that single precision found."""
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
    """The geometry that each pixel centre of the views sees.

    Attributes:
      position: float32[V, H, W, 3], world; 0 in the background.
      normal: float32[V, H, W, 3], unit, world; 0 in the background.
      mask: bool[V, H, W], whether anything is seen.
      face: int32[V, H, W], index of the face seen, -1 in the background.
    """

    position: np.ndarray
    normal: np.ndarray
    mask: np.ndarray
    face: np.ndarray


def surface_normals(mesh: Mesh, scene: RayScene, hits: Hits, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normals at hits, on the viewer's side: (interpolated corner normals, geometric normals), float64[n, 3] each.

    Which side is the viewer's is decided by the geometry alone, so a face seen from behind, and a file whose winding
    contradicts its normals, come out right.

    Args:
      mesh, scene: what was hit.
      hits: rays that all hit something.
      direction: float64[n, 3] or float64[3], of the rays.
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
    """Where rays go on behind a surface that they hit: float64[n, 3] of float64[n, 3] twice."""
    return positions + _SHADOW_OFFSET * directions


def _first_visible(scene: RayScene, hits: Hits, directions: np.ndarray, visible: Visible) -> Hits:
    """The first visible hits of rays whose first hits are ``hits``."""
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
    """Position, normal, mask and face of every pixel centre.

    Args:
      mesh: in the canonical frame.
      size: pixels along a side of a view.
      cameras: one for each view.
      visible: tells which places can be seen; None: all.
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
