"""Meshes whose whole texture is known: what views of it bake back to, in figures.

The truth is a procedural mesh of ``benchmarks/textured.py`` or an asset's own base colour. Its texture is the mean colour, in
linear light, of each texel, so that a file's texture of another size is resampled without aliasing; at the file's own size and
in its own coordinates it is the file's texture itself.
"""

import dataclasses
import pathlib

import numpy as np

from benchmarks import textured
from realiz3d_jax.geometry.assets.asset import load_asset
from realiz3d_jax.geometry.cameras import Camera
from realiz3d_jax.geometry.mesh import Mesh, linear_to_srgb, srgb_to_linear
from realiz3d_jax.geometry.textured_views import Colors, render_colors, texture_colors
from realiz3d_jax.geometry.texturing import seams
from realiz3d_jax.geometry.texturing.baking import Baked
from realiz3d_jax.geometry.texturing.texels import rasterise
from realiz3d_jax.geometry.texturing.unwrap import unwrap
from realiz3d_jax.metrics import image

BACKGROUND = (255, 0, 255)
"""Of rendered views; no texture comes near it, so that what bleeds into one is seen."""

_GUTTER = 4.0
"""Texels round the charts of an asset's true texture, which repeat its border."""

_ALONG_SEAMS = 8
"""Places along each edge of a face at which the two sides of a seam are compared."""


@dataclasses.dataclass(frozen=True, eq=False)
class GroundTruth:
    """A mesh with coordinates float[F, 3, 2], the colours of its surface, and its texture uint8[T, T, 3]."""

    name: str
    mesh: Mesh
    uv: np.ndarray
    colors: Colors
    texture: np.ndarray


@dataclasses.dataclass(frozen=True)
class Figures:
    """How well a texture was baked back.

    Attributes:
      seen, filled: PSNR in dB of the texels seen and of those filled, against the truth; NaN without any.
      novel_seen, novel: PSNR of renders from angles that were not baked, where everything a pixel shows was seen, and over the
        whole object.
      seams: mean difference between what the two sides of seams say of the same place, where both are seen, as a part of that
        between neighbouring texels of the truth.
      seams_truth: the same of the truth itself.
      edge: mean difference between neighbouring texels of which one is seen and one filled, as the same part; NaN without any.
    """

    seen: float
    filled: float
    novel_seen: float
    novel: float
    seams: float
    seams_truth: float
    edge: float


def procedural(name: str, faces: int, size: int, texels_per_wave: float) -> GroundTruth:
    """One of ``textured.NAMES``."""
    known = textured.make(name, faces)
    texture = known.texture(size, size / texels_per_wave)
    return GroundTruth(name, known.mesh, known.uv, texture_colors(known.uv, texture), texture)


def of_asset(path: str, size: int) -> GroundTruth:
    """An asset with its own base colours, in its own texture coordinates if these can be used."""
    asset = unwrap(load_asset(path))
    sides = [max(part.material.texture.pixels.shape) for part in asset.parts if part.material.texture is not None]
    divisions = max(1, round(max(sides, default=size) / size))

    def colors(face: np.ndarray, barycentric: np.ndarray) -> np.ndarray:
        return asset.base_color(face, barycentric)[:, :3]

    texels = rasterise(asset.uv, size * divisions, _GUTTER * divisions)
    light = srgb_to_linear(colors(texels.face, texels.barycentric).astype(np.float64))
    row, column = np.divmod(texels.index, texels.size)
    index = row // divisions * size + column // divisions
    count = np.maximum(np.bincount(index, minlength=size * size), 1)
    mean = np.stack([np.bincount(index, channel, minlength=size * size) / count for channel in light.T], axis=-1)
    texture = np.round(255 * linear_to_srgb(mean)).astype(np.uint8).reshape(size, size, 3)
    return GroundTruth(pathlib.Path(path).stem, asset.mesh, asset.uv, colors, texture)


def compare(truth: GroundTruth, baked: Baked, cameras: list[Camera], novel: np.ndarray, samples: int) -> Figures:
    """The figures of a bake.

    Args:
      truth, baked: of the same size.
      cameras, novel: angles that were not baked, and the truth from there, uint8[V, H, W, 3], rendered with ``samples``.
    """
    size = novel.shape[1]
    again, cover = render_colors(
        truth.mesh, texture_colors(truth.uv, baked.texture), size, cameras, samples, BACKGROUND
    )
    whole = cover == 1
    seen = seen_from(truth.mesh, truth.uv, baked.seen, size, cameras, samples)
    step = step_difference(truth.texture, baked.seen)
    return Figures(
        seen=image.psnr(truth.texture, baked.texture, baked.seen),
        filled=image.psnr(truth.texture, baked.texture, baked.filled) if baked.filled.any() else np.nan,
        novel_seen=image.psnr(novel, again, seen),
        novel=image.psnr(novel, again, whole),
        seams=seam_difference(truth.mesh, truth.uv, baked.texture, baked.seen) / step,
        seams_truth=seam_difference(truth.mesh, truth.uv, truth.texture, baked.seen) / step,
        edge=edge_difference(baked.texture, baked.seen, baked.filled) / step,
    )


def seen_from(
    mesh: Mesh, uv: np.ndarray, seen: np.ndarray, size: int, cameras: list[Camera], samples: int
) -> np.ndarray:
    """Pixels all of whose rays hit texels among bool[T, T]: bool[V, H, W]."""

    def colors(face: np.ndarray, barycentric: np.ndarray) -> np.ndarray:
        place = (np.einsum("nc,ncd->nd", barycentric, uv[face]) * len(seen)).astype(np.int64).clip(0, len(seen) - 1)
        return seen[place[:, 1], place[:, 0], None].repeat(3, axis=1).astype(np.float32)

    return (render_colors(mesh, colors, size, cameras, samples, (0, 0, 0))[0] == 255).all(axis=-1)


def seam_difference(mesh: Mesh, uv: np.ndarray, texture: np.ndarray, seen: np.ndarray) -> float:
    """Mean difference, in levels of 255, between the colours that filtering gives to the two sides of seams; 0 without seams.

    Args:
      mesh: the surface.
      uv: float[F, 3, 2].
      texture: uint8[T, T, 3].
      seen: bool[T, T]; only places count at which all four texels of both sides are among these or beside one.
    """
    beyond, other = seams.neighbours(mesh)
    face, side = np.nonzero(beyond > np.arange(len(beyond))[:, None])
    there, back = beyond[face, side], other[face, side]
    ends = np.stack([uv[face, side], uv[face, (side + 1) % 3]], axis=1)
    matched = np.stack([uv[there, (back + 1) % 3], uv[there, back]], axis=1)
    vertex = mesh.vertices[mesh.faces]
    same_way = np.linalg.norm(vertex[face, side] - vertex[there, back], axis=-1) < 1e-6
    matched = np.where(same_way[:, None, None], matched[:, ::-1], matched)
    cut = np.abs(ends - matched).max(axis=(1, 2)) > 1e-6
    along = (np.arange(_ALONG_SEAMS) + 0.5) / _ALONG_SEAMS
    weights = np.stack([1 - along, along], axis=-1)
    near = seen.copy()
    for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
        near |= np.roll(seen, shift, axis)
    values, counts = zip(
        *(_filtered(np.einsum("ae,ned->nad", weights, of[cut]), texture, near) for of in (ends, matched)), strict=True
    )
    both = counts[0] & counts[1]
    return float(np.abs(values[0] - values[1])[both].mean()) if both.any() else 0.0


def _filtered(uv: np.ndarray, texture: np.ndarray, near: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bilinear samples float64[..., 3] of a texture at float[..., 2], and whether all their texels are among bool[T, T]."""
    place = (uv * len(texture) - 0.5).clip(0, len(texture) - 1)
    corner = np.minimum(place.astype(np.int64), len(texture) - 2)
    fraction, value, good = place - corner, np.zeros((*place.shape[:-1], 3)), np.ones(place.shape[:-1], bool)
    for down in (0, 1):
        for right in (0, 1):
            weight = np.abs(1 - right - fraction[..., 0]) * np.abs(1 - down - fraction[..., 1])
            value += weight[..., None] * texture[corner[..., 1] + down, corner[..., 0] + right]
            good &= near[corner[..., 1] + down, corner[..., 0] + right] | (weight < 1e-6)
    return value, good


def step_difference(texture: np.ndarray, seen: np.ndarray) -> float:
    """Mean difference, in levels of 255, between neighbouring texels within charts: of uint8[T, T, 3] and bool[T, T]."""
    return _difference(texture, seen, seen)


def edge_difference(texture: np.ndarray, seen: np.ndarray, filled: np.ndarray) -> float:
    """The same between neighbours of which one is seen and one filled; NaN without any."""
    return _difference(texture, seen, filled)


def _difference(texture: np.ndarray, one: np.ndarray, two: np.ndarray) -> float:
    values, found = texture.astype(np.int16), []
    for here, there in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        pairs = (one[here] & two[there]) | (two[here] & one[there])
        found.append(np.abs(values[here] - values[there])[pairs])
    found = np.concatenate(found)
    return float(found.mean()) if len(found) else float("nan")
