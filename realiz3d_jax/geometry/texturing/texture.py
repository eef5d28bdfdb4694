"""Textures an unwrapped asset with views of it and writes a GLB; all commands use this module.

The defaults were measured on the sphere, the torus and the cube of ``benchmarks/textured.py``, unwrapped again, rendered at S =
32 to 256 pixels and baked. New views of a texture with 4 S texels a side are within 0.3 dB of those with 8 S. Below 128 pixels,
a margin of two pixels beside edges instead of three improves new views by 0.8 to 2.7 dB, because three pixels are a large part
of the object there. A margin of one pixel is better still for rendered views, but generated views, whose silhouettes are
inexact, then leave a pale rim.
"""

from collections.abc import Sequence

import numpy as np

from realiz3d_jax.geometry.assets.asset import Asset
from realiz3d_jax.geometry.assets.gltf_writer import write_textured_glb
from realiz3d_jax.geometry.cameras import STANDARD, Camera
from realiz3d_jax.geometry.texturing.baking import Baked, BakeOptions, bake
from realiz3d_jax.geometry.texturing.texels import rasterise

SIZES = (512, 1024, 2048, 4096)
"""Supported sizes of a texture, texels along a side."""

_LARGEST_BY_DEFAULT = 2048

_SMALL_VIEW = 128


def texture_size(pixels: int) -> int:
    """Default size of a texture, texels along a side, for views with ``pixels`` pixels along a side."""
    return next(size for size in SIZES if size >= min(4 * pixels, _LARGEST_BY_DEFAULT))


def texture_asset(
    asset: Asset, views: np.ndarray, cameras: Sequence[Camera] = STANDARD, *, size: int, harmonise: bool = False
) -> tuple[bytes, Baked]:
    """Bakes views into a texture of the asset, which keeps its own opacity.

    Args:
      asset: asset with texture coordinates, as ``unwrap`` makes them.
      views: uint8[V, H, W, 3 or 4], sRGB, H = W; pixels with an alpha below one half are ignored.
      cameras: V orthographic cameras, one per view.
      size: texels along a side of the texture.
      harmonise: whether gains align the views where they overlap.

    Returns:
      (bytes of the GLB, result of the bake).

    Raises:
      UserError: the shapes do not match.
    """
    options = BakeOptions(size=size, harmonise=harmonise)
    if views.shape[1] < _SMALL_VIEW:
        options = BakeOptions(size=size, harmonise=harmonise, edge_erosion=2, edge_feather=2)
    baked = bake(asset.mesh, asset.uv, views, cameras, options)
    texture = baked.texture
    if asset.visible:
        texture = np.dstack([texture, _alpha(asset, options)])
    return write_textured_glb(asset, texture), baked


def _alpha(asset: Asset, options: BakeOptions) -> np.ndarray:
    """Opacity of the asset's file at the texels, uint8[T, T], which preserves cut-outs."""
    texels = rasterise(asset.uv, options.size, options.gutter)
    alpha = np.full(options.size**2, 255, np.uint8)
    alpha[texels.index] = np.round(255 * asset.base_color(texels.face, texels.barycentric)[:, 3])
    return alpha.reshape(options.size, options.size)
