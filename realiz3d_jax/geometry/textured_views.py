"""Rendering of textured assets without lighting: each pixel is the mean colour of a lattice of rays.

The mean is taken in linear light, as in the pixel of a camera; rays that miss the mesh contribute the background.
"""

from collections.abc import Callable, Sequence

import numpy as np

from realiz3d_jax.geometry.cameras import STANDARD, Camera
from realiz3d_jax.geometry.mesh import Mesh, linear_to_srgb, srgb_to_linear
from realiz3d_jax.geometry.render import MOST_LAYERS, Hits, RayScene, past

Colors = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Colours of points on a mesh: (face int32[n], barycentric float64[n, 3]) to float[n, 3 or 4], sRGB and optionally alpha, in
[0, 1]; for example ``Asset.base_color`` or the result of ``texture_colors``."""

Shade = Callable[[Hits, np.ndarray], np.ndarray]
"""(n actual hits, directions of their rays float64[n, 3]) to float[n, 4]: linear light and opacity."""

_RAYS = 1 << 18
"""Rays traced at once, which bounds memory."""

_CLEAR = 1 / 512
"""Remaining transparency at which a ray ends: half a step of 8 bits."""

_LINEAR = srgb_to_linear(np.arange(256) / 255.0).astype(np.float32)


def texture_colors(uv: np.ndarray, texture: np.ndarray) -> Colors:
    """Makes the colour function of a textured mesh: bilinear in linear light and clamped to the edge, as in glTF.

    Args:
      uv: float[F, 3, 2], texture coordinates of the faces' corners, v down.
      texture: uint8[H, W, 3], sRGB, row 0 at v = 0.
    """
    height, width, _ = texture.shape
    texels = texture.reshape(-1, 3)

    def colors(face: np.ndarray, barycentric: np.ndarray) -> np.ndarray:
        place = np.einsum("nc,ncd->nd", barycentric, uv[face]) * [width, height] - 0.5
        corner = np.floor(place)
        fraction = (place - corner).astype(np.float32)
        corner = corner.astype(np.int64)
        light = np.zeros((len(face), 3), np.float32)
        for down in (0, 1):
            for right in (0, 1):
                column, row = (corner[:, 0] + right).clip(0, width - 1), (corner[:, 1] + down).clip(0, height - 1)
                weight = np.abs(1 - right - fraction[:, 0]) * np.abs(1 - down - fraction[:, 1])
                light += weight[:, None] * _LINEAR[texels[row * width + column]]
        return linear_to_srgb(light)

    return colors


def render_colors(
    mesh: Mesh,
    colors: Colors,
    size: int,
    cameras: Sequence[Camera] = STANDARD,
    samples: int = 2,
    background: tuple[int, int, int] = (255, 255, 255),
) -> tuple[np.ndarray, np.ndarray]:
    """Renders views of a mesh in its own colours.

    Args:
      mesh: in the canonical frame.
      colors: colours of the surface; surfaces with alpha are blended over those behind them.
      size: pixels along a side of a view.
      cameras: V cameras, one per view.
      samples: rays along a side of a pixel.
      background: sRGB in [0, 255].

    Returns:
      images: uint8[V, H, W, 3], sRGB.
      cover: float32[V, H, W], the fraction of each pixel that the mesh covers.
    """
    scene, empty = RayScene(mesh), _LINEAR[np.array(background)]
    images = np.empty((len(cameras), size, size, 3), np.uint8)
    cover = np.empty((len(cameras), size, size), np.float32)
    for view, camera in enumerate(cameras):
        light, cover[view] = draw(mesh, scene, shade_of(colors), camera, size, samples)
        images[view] = np.round(255 * linear_to_srgb(light + (1 - cover[view, ..., None]) * empty))
    return images, cover


def shade_of(colors: Colors) -> Shade:
    """Makes the shading function of unlit surfaces with these colours."""

    def shade(hits: Hits, directions: np.ndarray) -> np.ndarray:
        del directions
        color = colors(hits.face, hits.barycentric)
        alpha = color[:, 3:] if color.shape[1] == 4 else np.ones((len(color), 1))
        return np.concatenate([srgb_to_linear(color[:, :3]), alpha], axis=-1)

    return shade


def draw(
    mesh: Mesh, scene: RayScene, shade: Shade, camera: Camera, size: int, samples: int
) -> tuple[np.ndarray, np.ndarray]:
    """Renders one view in linear light, without a background.

    Args:
      mesh: in the canonical frame.
      scene: its ray scene.
      shade: shading of the surface.
      camera: camera of the view.
      size: pixels along a side of the view.
      samples: rays along a side of a pixel.

    Returns:
      light: float32[H, W, 3], linear, averaged over each pixel; premultiplied by ``cover``.
      cover: float32[H, W], the fraction of each pixel that the mesh covers.
    """
    light, cover = np.zeros((size * size, 3), np.float32), np.zeros(size * size, np.float32)
    near = _pixels_near(mesh, camera, size)
    for origins, directions in _shifted_rays(camera, size, samples):
        directions = np.broadcast_to(directions, origins.shape)
        for start in range(0, len(near), _RAYS):
            part = near[start : start + _RAYS]
            sent, covered = _trace(scene, shade, origins[part], directions[part])
            light[part] += sent
            cover[part] += covered
    return (light / samples**2).reshape(size, size, 3), (cover / samples**2).reshape(size, size)


def _pixels_near(mesh: Mesh, camera: Camera, size: int) -> np.ndarray:
    """Pixels inside the mesh's bounding rectangle in a view, int[n]; the others show the background."""
    pixels, depth = camera.project(mesh.vertices, size)
    if camera.perspective and depth.min() <= 0:
        return np.arange(size * size)
    low = np.clip(np.floor(pixels.min(axis=0)), 0, size).astype(int)
    high = np.clip(np.ceil(pixels.max(axis=0)), 0, size).astype(int)
    return (np.arange(low[1], high[1])[:, None] * size + np.arange(low[0], high[0])).reshape(-1)


def _trace(scene: RayScene, shade: Shade, origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Light along rays, float32[n, 3], and their opacity, float32[n]; transparent surfaces are blended from front to back."""
    light, clear = np.zeros((len(origins), 3), np.float32), np.ones(len(origins), np.float32)
    rays = np.arange(len(origins))
    for _ in range(MOST_LAYERS):
        found = scene.intersect(origins, directions[rays])
        hit = np.flatnonzero(found.face >= 0)
        seen = rays[hit]
        sent = shade(found.at(hit), directions[seen]).astype(np.float32)
        light[seen] += (clear[seen] * sent[:, 3])[:, None] * sent[:, :3]
        clear[seen] *= 1 - sent[:, 3]
        further = clear[seen] > _CLEAR
        rays = seen[further]
        if not len(rays):
            break
        origins = past(found.position[hit[further]], directions[rays])
    return light, 1 - clear


def _shifted_rays(camera: Camera, size: int, samples: int):
    """Yields the rays of all pixels for each lattice point in a pixel: origins [n, 3] and directions [n, 3] or [3]."""
    origins, directions = (array.reshape(-1, 3) for array in camera.rays(size))
    right, up, backward = camera.axes
    steps = ((np.arange(samples) + 0.5) / samples - 0.5) * camera.width / size
    for down in steps:
        for across in steps:
            shift = across * right - down * up
            if not camera.perspective:
                yield origins + shift, directions[0]
                continue
            turned = directions / -(directions @ backward)[:, None] + shift
            yield origins, turned / np.linalg.norm(turned, axis=-1, keepdims=True)
