"""An unwrapped asset and views of it become a textured GLB: the one way that all commands share.

Measured on the sphere, the torus and the cube of ``benchmarks/textured.py``, unwrapped anew, rendered at S = 32 to 256 pixels
and baked: new views of a texture of 4 S texels a side are within 0.3 dB of those of one of 8 S. Below 128 pixels a margin of
two pixels beside edges instead of three shows new views 0.8 to 2.7 dB better, for three are a large part of the object there;
one pixel shows rendered views better still, but generated ones, whose outlines are not exact, leave a pale rim.
"""

from collections.abc import Sequence

import numpy as np

from realiz3d_jax.geometry.assets.asset import Asset
from realiz3d_jax.geometry.assets.gltf_writer import write_textured_glb
from realiz3d_jax.geometry.cameras import STANDARD, Camera
from realiz3d_jax.geometry.texturing.baking import Baked, BakeOptions, bake
from realiz3d_jax.geometry.texturing.texels import rasterise

SIZES = (512, 1024, 2048, 4096)
"""Texels along a side of a texture that can be asked for."""

_LARGEST_BY_DEFAULT = 2048

_SMALL_VIEW = 128


def texture_size(pixels: int) -> int:
    """The texture, in texels along a side, that holds what views of so many pixels along a side show."""
    return next(size for size in SIZES if size >= min(4 * pixels, _LARGEST_BY_DEFAULT))


def texture_asset(
    asset: Asset, views: np.ndarray, cameras: Sequence[Camera] = STANDARD, *, size: int, harmonise: bool = False
) -> tuple[bytes, Baked]:
    """Bakes views into a texture of the asset, which keeps its own opacity; returns the GLB and what was baked.

    Args:
      asset: with texture coordinates, as ``unwrap`` makes them.
      views: uint8[V, H, W, 3 or 4], sRGB, H = W; what a fourth channel, alpha, says is less than half opaque is not used.
      cameras: one for each view, orthographic.
      size: texels along a side of the texture.
      harmonise: whether gains make the views agree where they overlap.

    Raises:
      UserError: shapes do not fit.
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
    """The asset's own opacity at the texels, uint8[T, T]: what its file cuts away, stays away."""
    texels = rasterise(asset.uv, options.size, options.gutter)
    alpha = np.full(options.size**2, 255, np.uint8)
    alpha[texels.index] = np.round(255 * asset.base_color(texels.face, texels.barycentric)[:, 3])
    return alpha.reshape(options.size, options.size)
