"""The variational autoencoder of latent diffusion (AutoencoderKL): Stable Diffusion's, SDXL's and their kin.

    moments = W_quant Encoder(image)          image in [-1, 1], moments = (mean, log variance)
    z       = mean + exp(log variance / 2) noise
    latent  = (z - shift) scale
    image   = Decoder(W_post (latent / scale + shift))

Encoder and decoder are ladders of residual blocks, group norms and one single-headed attention at the lowest resolution.
Source: Rombach et al. (arXiv 2112.10752); diffusers ``AutoencoderKL``, whose arithmetic is reproduced so that its weights
load.

All functions take any leading axes before (H, W, C), so a grid's views are encoded independently; a grid that is first laid out
as one picture is encoded as a whole. Parameters are a nested dict; group norms compute in float32, all else in ``dtype``.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from realiz3d_jax.models import attention

Params = dict[str, Any]

_NORM_EPSILON = 1e-6
_LOG_VARIANCE_BOUNDS = (-30.0, 20.0)


@dataclasses.dataclass(frozen=True)
class VAEConfig:
    """Size of an autoencoder.

    Attributes:
      channels: channels of the residual blocks at each resolution, highest first; each step but the last halves the side.
      blocks: residual blocks at each resolution of the encoder; the decoder has one more.
      latent_channels: C of the latents.
      norm_groups: groups of every group norm.
      quant_convs: whether 1 x 1 convolutions surround the latents (Stable Diffusion 3 has none).
      scale, shift: normalise latents to about unit variance.
      dtype: dtype of the convolutions and of the attention.
    """

    channels: tuple[int, ...] = (128, 256, 512, 512)
    blocks: int = 2
    latent_channels: int = 4
    norm_groups: int = 32
    quant_convs: bool = True
    scale: float = 0.18215
    shift: float = 0.0
    dtype: str = "float32"

    @property
    def factor(self) -> int:
        """Side of an image over the side of its latent."""
        return 2 ** (len(self.channels) - 1)


def init(config: VAEConfig, key: jax.Array) -> Params:
    """Fresh float32 parameters, a nested dict."""
    return nnx.to_pure_dict(nnx.state(_Autoencoder(config, nnx.Rngs(params=key)), nnx.Param))


def encode(config: VAEConfig, params: Params, images: jax.Array) -> jax.Array:
    """Moments float32[..., h, w, 2 C] (mean, log variance) of images float[..., H, W, 3] in [-1, 1]; h = H / factor."""
    return _over_leading_axes(nnx.merge(_graph(config), params).encode, images)


def latents(config: VAEConfig, moments: jax.Array, key: jax.Array | None = None) -> jax.Array:
    """Latents float32[..., h, w, C] drawn from moments float[..., h, w, 2 C] with the key, or their mode without one."""
    mean, log_variance = jnp.split(moments.astype(jnp.float32), 2, axis=-1)
    if key is not None:
        deviation = jnp.exp(0.5 * jnp.clip(log_variance, *_LOG_VARIANCE_BOUNDS))
        mean = mean + deviation * jax.random.normal(key, mean.shape)
    return (mean - config.shift) * config.scale


def decode(config: VAEConfig, params: Params, latents: jax.Array) -> jax.Array:
    """Images float32[..., H, W, 3], in [-1, 1] but not clipped, of latents float[..., h, w, C]."""
    z = latents.astype(jnp.float32) / config.scale + config.shift
    return _over_leading_axes(nnx.merge(_graph(config), params).decode, z)


def decode_tiled(
    config: VAEConfig, params: Params, latents: jax.Array, tile: int = 64, overlap: float = 0.25
) -> jax.Array:
    """Decodes in overlapping tiles that are blended linearly, one after another, with the memory of one tile.

    The attention and the group norms of a tile see that tile alone, so the result is close to that of ``decode``, not equal.

    Args:
      latents: float[..., h, w, C].
      tile: side of a tile, latent pixels.
      overlap: part of a tile that it shares with its neighbour.

    Returns:
      float32[..., H, W, 3].
    """
    stride = int(tile * (1 - overlap))
    blend = int(tile * config.factor * overlap)
    keep = tile * config.factor - blend
    rows: list[jax.Array] = []
    above: list[jax.Array] = []
    for top in range(0, latents.shape[-3], stride):
        tiles: list[jax.Array] = []
        for left in range(0, latents.shape[-2], stride):
            part = latents[..., top : top + tile, left : left + tile, :]
            if tiles:  # wait for the previous tile: in parallel they would need the memory of all
                part, _ = jax.lax.optimization_barrier((part, tiles[-1]))
            tiles.append(decode(config, params, part))
        for index, current in enumerate(tiles):
            if above:
                current = _blend(above[index], current, blend, axis=-3)
            if index:
                current = _blend(tiles[index - 1], current, blend, axis=-2)
            tiles[index] = current
        rows.append(jnp.concatenate([current[..., :keep, :keep, :] for current in tiles], axis=-2))
        above = tiles
    return jnp.concatenate(rows, axis=-3)


def _blend(before: jax.Array, after: jax.Array, extent: int, axis: int) -> jax.Array:
    """Fades the first ``extent`` pixels of ``after`` in from the last ones of ``before``."""
    extent = min(before.shape[axis], after.shape[axis], extent)
    share = (jnp.arange(extent, dtype=jnp.float32) / extent).reshape((-1,) + (1,) * (-axis - 1))
    length = before.shape[axis]
    end = jax.lax.slice_in_dim(before, length - extent, length, axis=axis)
    start = jax.lax.slice_in_dim(after, 0, extent, axis=axis)
    rest = jax.lax.slice_in_dim(after, extent, after.shape[axis], axis=axis)
    return jnp.concatenate([end * (1 - share) + start * share, rest], axis=axis)


def _over_leading_axes(function: Callable[[jax.Array], jax.Array], array: jax.Array) -> jax.Array:
    flat = function(array.reshape(-1, *array.shape[-3:]))
    return flat.reshape(*array.shape[:-3], *flat.shape[1:])


@functools.cache
def _graph(config: VAEConfig) -> nnx.GraphDef:
    return nnx.graphdef(nnx.eval_shape(lambda: _Autoencoder(config, nnx.Rngs(params=jax.random.key(0)))))


def _conv(inputs: int, outputs: int, side: int, config: VAEConfig, rngs: nnx.Rngs, **options) -> nnx.Conv:
    padding = options.pop("padding", side // 2)
    return nnx.Conv(inputs, outputs, (side, side), padding=padding, dtype=config.dtype, rngs=rngs, **options)


class _Norm(nnx.GroupNorm):
    """A group norm in float32."""

    def __init__(self, channels: int, config: VAEConfig, rngs: nnx.Rngs):
        super().__init__(
            channels,
            config.norm_groups,
            epsilon=_NORM_EPSILON,
            dtype=jnp.float32,
            use_fast_variance=False,
            rngs=rngs,
        )


class _Residual(nnx.Module):
    def __init__(self, inputs: int, outputs: int, config: VAEConfig, rngs: nnx.Rngs):
        self.norm1, self.norm2 = _Norm(inputs, config, rngs), _Norm(outputs, config, rngs)
        self.conv1 = _conv(inputs, outputs, 3, config, rngs)
        self.conv2 = _conv(outputs, outputs, 3, config, rngs)
        self.shortcut = _conv(inputs, outputs, 1, config, rngs) if inputs != outputs else nnx.identity

    def __call__(self, x: jax.Array) -> jax.Array:
        update = self.conv1(nnx.silu(self.norm1(x)))
        update = self.conv2(nnx.silu(self.norm2(update)))
        return self.shortcut(x) + update


class _Attention(nnx.Module):
    """Attention with one head over all pixels."""

    def __init__(self, channels: int, config: VAEConfig, rngs: nnx.Rngs):
        self.norm = _Norm(channels, config, rngs)
        self.query_key_value = nnx.LinearGeneral(channels, (3, channels), dtype=config.dtype, rngs=rngs)
        self.out = nnx.Linear(channels, channels, dtype=config.dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        fused = self.query_key_value(self.norm(x).reshape(batch, height * width, channels))[..., None, :]
        attended = attention.attend(fused[:, :, 0], fused[:, :, 1], fused[:, :, 2])
        return x + self.out(attended[:, :, 0]).reshape(x.shape)


class _Middle(nnx.Module):
    def __init__(self, channels: int, config: VAEConfig, rngs: nnx.Rngs):
        self.first = _Residual(channels, channels, config, rngs)
        self.attention = _Attention(channels, config, rngs)
        self.second = _Residual(channels, channels, config, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.second(self.attention(self.first(x)))


class _Down(nnx.Module):
    """Residual blocks at one resolution, then a halving of the side unless it is the last."""

    def __init__(self, inputs: int, outputs: int, last: bool, config: VAEConfig, rngs: nnx.Rngs):
        sizes = [inputs] + [outputs] * (config.blocks - 1)
        self.residuals = nnx.List([_Residual(size, outputs, config, rngs) for size in sizes])
        # The reference pads at the bottom and at the right only.
        options = {"strides": 2, "padding": ((0, 1), (0, 1))}
        self.shrink = nnx.identity if last else _conv(outputs, outputs, 3, config, rngs, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        for residual in self.residuals:
            x = residual(x)
        return self.shrink(x)


class _Up(nnx.Module):
    """Residual blocks at one resolution, then a doubling of the side unless it is the last."""

    def __init__(self, inputs: int, outputs: int, last: bool, config: VAEConfig, rngs: nnx.Rngs):
        sizes = [inputs] + [outputs] * config.blocks
        self.residuals = nnx.List([_Residual(size, outputs, config, rngs) for size in sizes])
        self.grow = None if last else _conv(outputs, outputs, 3, config, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for residual in self.residuals:
            x = residual(x)
        return x if self.grow is None else self.grow(x.repeat(2, axis=1).repeat(2, axis=2))


class _Encoder(nnx.Module):
    def __init__(self, config: VAEConfig, rngs: nnx.Rngs):
        channels = config.channels
        top, bottom = channels[0], channels[-1]
        self.enter = _conv(3, top, 3, config, rngs)
        self.down = nnx.List(
            [
                _Down(inputs, outputs, index == len(channels) - 1, config, rngs)
                for index, (inputs, outputs) in enumerate(zip((top, *channels[:-1]), channels, strict=True))
            ]
        )
        self.middle = _Middle(bottom, config, rngs)
        self.norm = _Norm(bottom, config, rngs)
        self.leave = _conv(bottom, 2 * config.latent_channels, 3, config, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.enter(x)
        for down in self.down:
            x = down(x)
        return self.leave(nnx.silu(self.norm(self.middle(x))))


class _Decoder(nnx.Module):
    def __init__(self, config: VAEConfig, rngs: nnx.Rngs):
        rising = config.channels[::-1]
        bottom, top = rising[0], rising[-1]
        self.enter = _conv(config.latent_channels, bottom, 3, config, rngs)
        self.middle = _Middle(bottom, config, rngs)
        self.up = nnx.List(
            [
                _Up(inputs, outputs, index == len(rising) - 1, config, rngs)
                for index, (inputs, outputs) in enumerate(zip((bottom, *rising[:-1]), rising, strict=True))
            ]
        )
        self.norm = _Norm(top, config, rngs)
        self.leave = _conv(top, 3, 3, config, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.middle(self.enter(x))
        for up in self.up:
            x = up(x)
        return self.leave(nnx.silu(self.norm(x)))


class _Autoencoder(nnx.Module):
    def __init__(self, config: VAEConfig, rngs: nnx.Rngs):
        latent = config.latent_channels
        self.dtype = config.dtype
        self.encoder = _Encoder(config, rngs)
        self.decoder = _Decoder(config, rngs)
        if config.quant_convs:
            self.quant = _conv(2 * latent, 2 * latent, 1, config, rngs)
            self.post_quant = _conv(latent, latent, 1, config, rngs)
        else:
            self.quant = self.post_quant = nnx.identity

    def encode(self, x: jax.Array) -> jax.Array:
        return self.quant(self.encoder(x.astype(self.dtype))).astype(jnp.float32)

    def decode(self, x: jax.Array) -> jax.Array:
        return self.decoder(self.post_quant(x.astype(self.dtype))).astype(jnp.float32)
