"""The two looks of the shapes benchmark: *synthetic*, flat colour in uniform light, and *real*, a small photograph.

The real look of a surface point with outward normal n, view direction v and light direction l, in linear light:

    albedo  = base * texture(x)                                                         (a solid texture, per material)
    diffuse = albedo * (ambient(n) + sun * visible * max(0, n.l))                       (Lambert)
    glossy  = gloss * visible * max(0, n.h)^exponent + rim * (1 - n.v)^4,  h = (l + v)/|l + v|       (Blinn-Phong)
    pixel   = noise(srgb(tone(diffuse + glossy)))

The light comes from above and to the left of the camera. Each ray of a pixel sees it from a slightly different direction,
which softens the shadows. The colours of a pixel's rays are averaged as displayed values over white. Sensor noise scales
with the fraction of the pixel that the object covers, so the background is exactly white in both looks, as in the paper's
photographs after segmentation.
"""

from collections.abc import Sequence

import numpy as np

from realiz3d_jax.geometry.cameras import STANDARD, Camera
from realiz3d_jax.geometry.mesh import Mesh, linear_to_srgb, srgb_to_linear
from realiz3d_jax.geometry.render import RayScene, surface_normals

SAMPLES = 3
"""Rays along a side of a pixel."""

TEXTURES = ("stripes", "checker", "grain", "blotches")

_LATTICE = 32
"""Cells along a side of a texture's noise lattice, a power of two."""


def render_looks(
    mesh: Mesh, size: int, generator: np.random.Generator, cameras: Sequence[Camera] = STANDARD
) -> tuple[np.ndarray, np.ndarray]:
    """Renders both looks of a mesh from all views.

    Args:
      mesh: mesh in the canonical frame; each base colour is a separate material.
      size: pixels along a side of a view.
      generator: source of the real look's textures, light and noise.
      cameras: one per view.

    Returns:
      (synthetic, real): uint8[V, size, size, 3] each, sRGB over white.
    """
    scene = RayScene(mesh)
    palette, material = np.unique(mesh.face_color, axis=0, return_inverse=True)
    material = material.reshape(-1)
    albedo = [_Texture(generator) for _ in palette]
    light = _Light(generator)
    synthetic, real = [], []
    for camera in cameras:
        origins, direction = camera.rays(size, SAMPLES)
        rays = _rays_near(mesh, camera, size)
        hits = scene.intersect(origins.reshape(-1, 3)[rays], direction)
        hit = np.flatnonzero(hits.face >= 0)
        seen, hits = rays[hit], hits.at(hit)
        normal, geometric = surface_normals(mesh, scene, hits, direction)
        position, face = hits.position, hits.face
        base = mesh.face_color[face].astype(np.float64)
        colors = srgb_to_linear(base)
        for index, texture in enumerate(albedo):
            of_material = material[face] == index
            colors[of_material] = texture(position[of_material], colors[of_material])
        shaded = light.shade(scene, position, normal, geometric, colors, camera, generator)
        coverage, flat = _average(base, seen, size)
        _, lit = _average(shaded, seen, size)
        deviation = (0.012 + 0.02 * np.sqrt(np.clip(lit, 0, 1))) * coverage[..., None]
        luminance_noise = generator.standard_normal((size, size, 1))
        color_noise = generator.standard_normal((size, size, 3))
        lit = lit + deviation * (0.8 * luminance_noise + 0.6 * color_noise)
        synthetic.append(_to_bytes(flat))
        real.append(_to_bytes(lit))
    return np.stack(synthetic), np.stack(real)


def _rays_near(mesh: Mesh, camera: Camera, size: int) -> np.ndarray:
    """Indices int[n] of a view's rays inside the mesh's bounding rectangle; all others see the background."""
    pixels, _ = camera.project(mesh.vertices, size * SAMPLES)
    low = np.maximum(np.floor(pixels.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(pixels.max(axis=0)).astype(int), size * SAMPLES)
    return (np.arange(low[1], high[1])[:, None] * (size * SAMPLES) + np.arange(low[0], high[0])).reshape(-1)


def _average(values: np.ndarray, seen: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Coverage float64[size, size] and mean colour over white float64[size, size, 3] of each pixel's rays."""
    rows, columns = np.divmod(seen, size * SAMPLES)
    pixel = rows // SAMPLES * size + columns // SAMPLES
    rays = SAMPLES * SAMPLES
    coverage = np.bincount(pixel, minlength=size * size) / rays
    sums = [np.bincount(pixel, weights=values[:, channel], minlength=size * size) for channel in range(3)]
    image = np.stack(sums, axis=-1) / rays + (1 - coverage)[:, None]
    return coverage.reshape(size, size), image.reshape(size, size, 3)


def _to_bytes(image: np.ndarray) -> np.ndarray:
    return np.round(np.clip(image, 0.0, 1.0) * 255).astype(np.uint8)


class _Light:
    """A sun above and to the left of the camera, a cool sky, and light reflected from a warm floor."""

    def __init__(self, generator: np.random.Generator):
        self._left = np.deg2rad(48 + 10 * generator.uniform(-1, 1))
        self._height = np.deg2rad(42 + 8 * generator.uniform(-1, 1))
        self._sun = 1.3 * (1 + 0.08 * generator.uniform(-1, 1)) * np.array([1.0, 0.97, 0.9])
        self._gloss = 0.45 * (1 + 0.4 * generator.uniform(-1, 1))
        self._exponent = 40.0

    def shade(
        self,
        scene: RayScene,
        position: np.ndarray,
        normal: np.ndarray,
        geometric: np.ndarray,
        albedo: np.ndarray,
        camera: Camera,
        generator: np.random.Generator,
    ) -> np.ndarray:
        """Displayed colour float64[n, 3] of surface points lit for a view; all array arguments are float64[n, 3]."""
        right, up, backward = camera.axes
        towards = (
            -np.sin(self._left) * np.cos(self._height) * right
            + np.cos(self._left) * np.cos(self._height) * backward
            + np.sin(self._height) * up
        )
        directions = towards + 0.06 * generator.standard_normal(position.shape)
        directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
        incidence = np.einsum("nd,nd->n", normal, directions)
        facing = (incidence > 0) & (np.einsum("nd,nd->n", geometric, directions) > 0)
        visible = np.zeros(len(position))
        lit = np.flatnonzero(facing)
        visible[lit] = ~scene.occluded(position[lit], geometric[lit], directions[lit])
        sky = 0.5 + 0.5 * normal @ up
        ambient = sky[:, None] * np.array([0.34, 0.36, 0.40]) + (1 - sky)[:, None] * np.array([0.22, 0.20, 0.17])
        diffuse = albedo * (ambient + (visible * np.maximum(incidence, 0))[:, None] * self._sun)
        halfway = towards + backward
        halfway /= np.linalg.norm(halfway)
        highlight = visible * np.maximum(normal @ halfway, 0) ** self._exponent
        rim = 0.10 * np.maximum(1 - np.maximum(normal @ backward, 0), 0) ** 4
        color = diffuse + (self._gloss * highlight + rim * sky)[:, None]
        return linear_to_srgb(np.where(color > 0.8, 0.8 + 0.2 * np.tanh((color - 0.8) / 0.2), color))


class _Texture:
    """A solid texture: multiplies a base colour, in linear light, by a pattern that depends on the object position."""

    def __init__(self, generator: np.random.Generator):
        self._kind = TEXTURES[generator.integers(len(TEXTURES))]
        direction = generator.standard_normal(3) + np.array([0.0, 0.0, 1.5])
        self._direction = direction / np.linalg.norm(direction)
        self._phase = generator.uniform(0, 1, 3)
        self._period = generator.uniform(0.13, 0.2)
        self._lattice = generator.random((_LATTICE,) * 3, np.float32).reshape(-1)

    def __call__(self, position: np.ndarray, albedo: np.ndarray) -> np.ndarray:
        """Returns ``albedo`` float64[n, 3] (linear) textured at ``position`` float64[n, 3]."""
        speckle = 0.1 * (self._noise(position / 0.045) - 0.5)
        return albedo * np.exp(self._pattern(position) + speckle)[:, None]

    def _pattern(self, position: np.ndarray) -> np.ndarray:
        """Logarithm of the pattern's brightness: float64[n]."""
        if self._kind == "stripes":
            bend = 0.25 * (self._noise(position / 0.3 + 0.5) - 0.5)
            wave = np.sin(2 * np.pi * (position @ self._direction / self._period + self._phase[0] + bend))
            return 0.36 * np.tanh(2.5 * wave)
        if self._kind == "checker":
            cells = np.floor(position / self._period + self._phase).sum(axis=-1)
            return 0.34 * (1 - 2 * (cells % 2))
        if self._kind == "grain":
            fibres = position + 3.0 * np.outer(position @ self._direction, self._direction)
            return 0.9 * (self._noise(fibres / 0.16 + 0.5) - 0.5) + 0.5 * (self._noise(fibres / 0.07) - 0.5)
        return 0.4 * np.tanh(8 * (self._noise(position / 0.17 + 0.5) - 0.5))

    def _noise(self, position: np.ndarray) -> np.ndarray:
        """Smooth noise float[n] in [0, 1] at float[n, 3], interpolating one random value per cell of a periodic lattice."""
        position = position.astype(np.float32)
        cell = np.floor(position)
        fraction = position - cell
        weights = fraction * fraction * (3 - 2 * fraction)
        low = cell.astype(np.int32) & (_LATTICE - 1)
        strides = np.array([_LATTICE * _LATTICE, _LATTICE, 1], np.int32)
        steps = np.stack([low * strides, ((low + 1) & (_LATTICE - 1)) * strides], axis=-1)
        x, y, z = steps[:, 0], steps[:, 1], steps[:, 2]
        values = self._lattice[x[:, :, None, None] + y[:, None, :, None] + z[:, None, None, :]]
        for axis in range(3):
            weight = weights[:, axis].reshape(-1, *(1,) * (2 - axis))
            values = values[:, 0] + weight * (values[:, 1] - values[:, 0])
        return values
