"""Textured assets as any camera sees them: colour alone, without light, each pixel the mean of a lattice of rays.

The mean is taken in linear light, as a camera's pixel is, and what rays miss counts with the background's light.
"""

from collections.abc import Callable, Sequence

import numpy as np

from realiz3d_jax.geometry.cameras import STANDARD, Camera
from realiz3d_jax.geometry.mesh import Mesh, linear_to_srgb, srgb_to_linear
from realiz3d_jax.geometry.render import MOST_LAYERS, Hits, RayScene, past

Colors = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Displayed colours of places on a mesh: (face int32[n], barycentric float64[n, 3]) to float[n, 3 or 4], sRGB and perhaps
alpha, in [0, 1]. ``Asset.base_color`` is one, ``texture_colors`` makes one."""

Shade = Callable[[Hits, np.ndarray], np.ndarray]
"""(hits that all hit something, directions of their rays float64[n, 3]) to float[n, 4]: linear light, and opacity."""

_RAYS = 1 << 18
"""Traced in one go: bounds memory."""

_CLEAR = 1 / 512
"""What lies behind is not looked for if less than this of its light comes through: half a step of 8 bits."""

_LINEAR = srgb_to_linear(np.arange(256) / 255.0).astype(np.float32)


def texture_colors(uv: np.ndarray, texture: np.ndarray) -> Colors:
    """The colours that a texture gives a mesh: bilinear in linear light, the outermost texels continued outwards, as glTF says.

    Args:
      uv: float[F, 3, 2], the corners of the faces, v down.
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
    """Views of a mesh in its own colours.

    Args:
      mesh: in the canonical frame.
      colors: of its surface; where they have an alpha, what lies behind shows through.
      size: pixels along a side of a view.
      cameras: one for each view.
      samples: rays along a side of a pixel.
      background: sRGB.

    Returns:
      uint8[V, H, W, 3], sRGB.
      float32[V, H, W], how much of each pixel the mesh covers.
    """
    scene, empty = RayScene(mesh), _LINEAR[np.array(background)]
    images = np.empty((len(cameras), size, size, 3), np.uint8)
    cover = np.empty((len(cameras), size, size), np.float32)
    for view, camera in enumerate(cameras):
        light, cover[view] = draw(mesh, scene, shade_of(colors), camera, size, samples)
        images[view] = np.round(255 * linear_to_srgb(light + (1 - cover[view, ..., None]) * empty))
    return images, cover


def shade_of(colors: Colors) -> Shade:
    """Surfaces that show their colours, without light."""

    def shade(hits: Hits, directions: np.ndarray) -> np.ndarray:
        del directions
        color = colors(hits.face, hits.barycentric)
        alpha = color[:, 3:] if color.shape[1] == 4 else np.ones((len(color), 1))
        return np.concatenate([srgb_to_linear(color[:, :3]), alpha], axis=-1)

    return shade


def draw(
    mesh: Mesh, scene: RayScene, shade: Shade, camera: Camera, size: int, samples: int
) -> tuple[np.ndarray, np.ndarray]:
    """One view, in linear light, over nothing.

    Args:
      mesh, scene: what is seen.
      shade: what its surface sends.
      camera: of the view.
      size: pixels along a side.
      samples: rays along a side of a pixel.

    Returns:
      float32[H, W, 3], light, as much as comes of each pixel's area.
      float32[H, W], how much of each pixel the mesh covers.
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
    """The pixels inside the mesh's bounding rectangle in a view, int[n]; the others see the background."""
    pixels, depth = camera.project(mesh.vertices, size)
    if camera.perspective and depth.min() <= 0:
        return np.arange(size * size)
    low = np.clip(np.floor(pixels.min(axis=0)), 0, size).astype(int)
    high = np.clip(np.ceil(pixels.max(axis=0)), 0, size).astype(int)
    return (np.arange(low[1], high[1])[:, None] * size + np.arange(low[0], high[0])).reshape(-1)


def _trace(scene: RayScene, shade: Shade, origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Light float32[n, 3] that surfaces send along rays, and how much of what lies behind they cover, float32[n].

    Surfaces that are not opaque are blended from front to back, each with its alpha.
    """
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
    """The rays of all pixels, once for each place of the lattice in a pixel: origins [n, 3] and directions [n, 3] or [3]."""
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
