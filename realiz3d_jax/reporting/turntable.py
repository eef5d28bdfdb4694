"""Pictures of assets for people to look at: their colours as they are, or their shape as if made of clay.

A pixel is the mean of ``_SAMPLES`` x ``_SAMPLES`` rays in linear light. Colours are drawn without light: what is seen is the
texture. Clay of albedo a is lit by the sky and by a lamp over the viewer's left shoulder; with the normal n, upwards z,

    a (0.14 + 0.18 (1 + n . z) / 2 + 0.70 max(n . lamp, 0)).                                                               (1)
"""

import numpy as np

from realiz3d_jax.geometry import cameras
from realiz3d_jax.geometry.assets.asset import Asset
from realiz3d_jax.geometry.cameras import Camera
from realiz3d_jax.geometry.mesh import Mesh, linear_to_srgb
from realiz3d_jax.geometry.render import Hits, RayScene, surface_normals
from realiz3d_jax.geometry.textured_views import Shade, draw, shade_of

_SAMPLES = 2
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
        return self._draw(camera, size, shade_of(self._asset.base_color))

    def clay(self, camera: Camera, size: int) -> np.ndarray:
        """The asset's shape: uint8[size, size, 4], sRGB and opacity."""
        lamp = _LAMP @ camera.axes

        def shade(hits: Hits, directions: np.ndarray) -> np.ndarray:
            normal, _ = surface_normals(self._asset.mesh, self._scene, hits, directions)
            light = 0.14 + 0.18 * (1 + normal[:, 2]) / 2 + 0.70 * np.maximum(normal @ lamp, 0)  # (1)
            return np.stack([_CLAY * light] * 3 + [np.ones_like(light)], axis=-1)

        return self._draw(camera, size, shade)

    def _draw(self, camera: Camera, size: int, shade: Shade) -> np.ndarray:
        """uint8[size, size, 4], sRGB and opacity."""
        light, cover = draw(self._asset.mesh, self._scene, shade, camera, size, _SAMPLES)
        color = linear_to_srgb(light / np.maximum(cover[..., None], 1e-6))
        return np.round(255 * np.concatenate([color, cover[..., None]], axis=-1)).astype(np.uint8)
