"""Pictures of assets for human viewers: their unlit colours, or their shape as clay.

A pixel is the mean of ``_SAMPLES`` x ``_SAMPLES`` rays in linear light. Colours are unlit and show the texture itself. Clay of
albedo a is lit by the sky and by a lamp over the viewer's left shoulder; with normal n and up direction z, its radiance is

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
"""Unit direction towards the lamp, along the view's right, up and backward axes."""

_ROOM = 1.08
"""Width of a turntable's views relative to the object's."""


def turntable_distance(mesh: Mesh, elevation: float, fov: float) -> float:
    """Returns the least distance from the origin at which perspective views from all sides show the whole mesh with a margin.

    Args:
      mesh: mesh in the canonical frame.
      elevation: elevation of the views, in degrees.
      fov: angle of view, in degrees.
    """
    tangent = np.tan(np.deg2rad(fov / 2)) / _ROOM
    points, distance = mesh.vertices.astype(np.float64), 0.0
    for azimuth in range(0, 360, 10):
        right, up, backward = cameras.view_axes(azimuth, elevation)
        aside = np.maximum(np.abs(points @ right), np.abs(points @ up))
        distance = max(distance, float((aside / tangent + points @ backward).max()))
    return distance


class Pictures:
    """Draws one asset from many sides. It holds an Embree scene and cannot be pickled, so create it where it is used."""

    def __init__(self, asset: Asset):
        self._asset, self._scene = asset, RayScene(asset.mesh)

    def colors(self, camera: Camera, size: int) -> np.ndarray:
        """Draws the asset's unlit colours: uint8[size, size, 4], sRGB and opacity."""
        return self._draw(camera, size, shade_of(self._asset.base_color))

    def clay(self, camera: Camera, size: int) -> np.ndarray:
        """Draws the asset's shape as clay: uint8[size, size, 4], sRGB and opacity."""
        lamp = _LAMP @ camera.axes

        def shade(hits: Hits, directions: np.ndarray) -> np.ndarray:
            normal, _ = surface_normals(self._asset.mesh, self._scene, hits, directions)
            light = 0.14 + 0.18 * (1 + normal[:, 2]) / 2 + 0.70 * np.maximum(normal @ lamp, 0)  # (1)
            return np.stack([_CLAY * light] * 3 + [np.ones_like(light)], axis=-1)

        return self._draw(camera, size, shade)

    def _draw(self, camera: Camera, size: int, shade: Shade) -> np.ndarray:
        """Draws with ``shade``: uint8[size, size, 4], sRGB and opacity."""
        light, cover = draw(self._asset.mesh, self._scene, shade, camera, size, _SAMPLES)
        color = linear_to_srgb(light / np.maximum(cover[..., None], 1e-6))
        return np.round(255 * np.concatenate([color, cover[..., None]], axis=-1)).astype(np.uint8)
