"""Pictures of assets for people to look at: their colours as they are, or their shape as if made of clay.

A pixel is the mean of ``_SAMPLES`` x ``_SAMPLES`` rays in linear light. Colours are drawn without light: what is seen is the
texture. Clay of albedo a is lit by the sky and by a lamp over the viewer's left shoulder; with the normal n, upwards z,

    a (0.14 + 0.18 (1 + n . z) / 2 + 0.70 max(n . lamp, 0)).                                                               (1)

What lies behind a transparent part of a surface is not drawn.
"""

from collections.abc import Callable

import numpy as np

from realiz3d_jax.geometry import cameras
from realiz3d_jax.geometry.assets import Asset
from realiz3d_jax.geometry.cameras import Camera
from realiz3d_jax.geometry.mesh import Mesh, linear_to_srgb, srgb_to_linear
from realiz3d_jax.geometry.render import Hits, RayScene, surface_normals

_SAMPLES = 2
_RAYS = 1 << 18
"""Rays at a time, so that memory stays small."""

_CLAY = 0.6
_LAMP = np.array([-0.45, 0.55, 0.7]) / np.linalg.norm([-0.45, 0.55, 0.7])
"""Towards the lamp, along the view's right, up and backward."""

_ROOM = 1.08
"""How much wider a turntable's views are than what turns in them."""


def turntable_distance(mesh: Mesh, elevation: float, fov: float) -> float:
    """The least distance from the origin at which perspective views from all round show the whole mesh, with a little room.

    Args:
      mesh: in the canonical frame.
      elevation: degrees, of the views.
      fov: degrees, the angle across them.
    """
    tangent = np.tan(np.deg2rad(fov / 2)) / _ROOM
    points, distance = mesh.vertices.astype(np.float64), 0.0
    for azimuth in range(0, 360, 10):
        right, up, backward = cameras.view_axes(azimuth, elevation)
        aside = np.maximum(np.abs(points @ right), np.abs(points @ up))
        distance = max(distance, float((aside / tangent + points @ backward).max()))
    return distance


class Pictures:
    """Draws one asset from many sides. It holds an Embree scene: make it where it is used, it can't be pickled."""

    def __init__(self, asset: Asset):
        self._asset, self._scene = asset, RayScene(asset.mesh)

    def colors(self, camera: Camera, size: int) -> np.ndarray:
        """The asset's own colours: uint8[size, size, 4], sRGB and opacity."""

        def shade(hits: Hits, directions: np.ndarray) -> np.ndarray:
            color = self._asset.base_color(hits.face, hits.barycentric)
            return np.concatenate([srgb_to_linear(color[:, :3]), color[:, 3:]], axis=-1)

        return self._draw(camera, size, shade)

    def clay(self, camera: Camera, size: int) -> np.ndarray:
        """The asset's shape: uint8[size, size, 4], sRGB and opacity."""
        lamp = _LAMP @ camera.axes

        def shade(hits: Hits, directions: np.ndarray) -> np.ndarray:
            normal, _ = surface_normals(self._asset.mesh, self._scene, hits, directions)
            light = 0.14 + 0.18 * (1 + normal[:, 2]) / 2 + 0.70 * np.maximum(normal @ lamp, 0)  # (1)
            return np.stack([_CLAY * light] * 3 + [np.ones_like(light)], axis=-1)

        return self._draw(camera, size, shade)

    def _draw(self, camera: Camera, size: int, shade: Callable[[Hits, np.ndarray], np.ndarray]) -> np.ndarray:
        """A view, uint8[size, size, 4].

        Args:
          camera: of the view.
          size: pixels along a side.
          shade: of rays' hits and directions float64[n, 3], all of which hit something, their linear light and opacity,
            float[n, 4].
        """
        origins, directions = camera.rays(size, _SAMPLES)
        directions = np.broadcast_to(directions, origins.shape).reshape(-1, 3)
        origins = origins.reshape(-1, 3)
        total = np.zeros((len(origins), 4), np.float32)
        for start in range(0, len(origins), _RAYS):
            rays = slice(start, start + _RAYS)
            hits = self._scene.intersect(origins[rays], directions[rays])
            seen = np.flatnonzero(hits.face >= 0)
            color = shade(hits.at(seen), directions[start + seen])
            total[start + seen] = np.concatenate([color[:, :3] * color[:, 3:], color[:, 3:]], axis=-1)
        total = total.reshape(size * _SAMPLES, size * _SAMPLES, 4)
        within = [(row, column) for row in range(_SAMPLES) for column in range(_SAMPLES)]
        pixels = sum(total[row::_SAMPLES, column::_SAMPLES] for row, column in within) / len(within)
        color = linear_to_srgb(pixels[..., :3] / np.maximum(pixels[..., 3:], 1e-6))
        return np.round(255 * np.concatenate([color, pixels[..., 3:]], axis=-1)).astype(np.uint8)
