"""Codecs between images and latents: pixels as they are, or the autoencoder of a latent diffusion model.

Between the two stands what a dataset stores: images themselves, or the moments that an autoencoder made of them once, from
which a latent can be drawn in every step. Encoding and decoding take the codec's parameters; reading what is stored takes
none, so training on prepared data needs no autoencoder.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from realiz3d_jax.errors import UserError
from realiz3d_jax.models import vae
from realiz3d_jax.models.vae import VAEConfig
from realiz3d_jax.views import to_grid, to_views

MAPS = 2
"""Pictures that control the texturing task: normals and positions, three channels each."""

Array = np.ndarray | jax.Array


class Codec(Protocol):
    """All methods take arrays with any leading axes, the last of which are a grid's views.

    Attributes:
      codec: its name in a config.
      channels: C of a latent.
      control_channels: of the control of the texturing task, as the model takes it.
      factor: side of an image over the side of its latent.
      bound: of the absolute value of a latent; None where there is none.
    """

    codec: str
    channels: int
    control_channels: int
    factor: int
    bound: float | None

    def init(self, key: jax.Array) -> Any:
        """Fresh parameters, None if it has none."""

    def encode(self, params: Any, images: Array) -> Array:
        """What is stored of uint8[..., V, H, W, 3]."""

    def encode_control(self, params: Any, maps: Array) -> Array:
        """What is stored of normal and position maps float32[..., V, H, W, 6] in [0, 1], 0 in the background."""

    def latents(self, stored: Array, key: jax.Array | None = None) -> Array:
        """float32[..., V, h, w, C] of what ``encode`` gave; drawn with the key, the most likely one without."""

    def control(self, stored: Array) -> Array:
        """float32[..., V, h, w, control channels] of what ``encode_control`` gave."""

    def decode(self, params: Any, latents: Array) -> Array:
        """uint8[..., V, H, W, 3]: rounded, and clipped to what an image can hold."""


@dataclasses.dataclass(frozen=True)
class PixelCodec:
    """Images are their own latents, scaled to [-1, 1], and control maps their own control; it has no parameters."""

    codec: str = "pixel"
    channels = 3
    control_channels = 3 * MAPS
    factor = 1
    bound = 1.0

    def init(self, key: jax.Array) -> None:
        return None

    def encode(self, params: None, images: Array) -> Array:
        return images

    def encode_control(self, params: None, maps: Array) -> Array:
        return maps

    def latents(self, stored: Array, key: jax.Array | None = None) -> Array:
        return stored.astype(np.float32) / np.float32(127.5) - np.float32(1.0)

    def control(self, stored: Array) -> Array:
        return stored

    def decode(self, params: None, latents: Array) -> Array:
        return _image(latents)


@dataclasses.dataclass(frozen=True)
class AutoencoderCodec:
    """Latents of an ``AutoencoderKL``; parameters as ``vae.init`` makes them.

    Stored are moments, float[..., V, h, w, 2 C]; of a control those of normals and positions, the two in one array. A control's
    latents are always the most likely ones.

    Attributes:
      whole_grid: a grid's views are encoded and decoded as one picture; else one by one, and no view sees another.
      tile: latent pixels; larger pictures are decoded in overlapping tiles of this side (``vae.decode_tiled``).
    """

    autoencoder: VAEConfig = dataclasses.field(default_factory=VAEConfig)
    whole_grid: bool = False
    tile: int = 128
    codec: str = "autoencoder"
    bound = None

    @property
    def channels(self) -> int:
        return self.autoencoder.latent_channels

    @property
    def control_channels(self) -> int:
        return MAPS * self.channels

    @property
    def factor(self) -> int:
        return self.autoencoder.factor

    def init(self, key: jax.Array) -> vae.Params:
        return vae.init(self.autoencoder, key)

    def encode(self, params: vae.Params, images: Array) -> jax.Array:
        return self._encode(params, images.astype(jnp.float32) / 127.5 - 1.0)

    def encode_control(self, params: vae.Params, maps: Array) -> jax.Array:
        pictures = jnp.split(maps.astype(jnp.float32) * 2.0 - 1.0, MAPS, axis=-1)
        return jnp.concatenate([self._encode(params, picture) for picture in pictures], axis=-1)

    def latents(self, stored: Array, key: jax.Array | None = None) -> jax.Array:
        return vae.latents(self.autoencoder, stored, key)

    def control(self, stored: Array) -> jax.Array:
        return jnp.concatenate([self.latents(moments) for moments in jnp.split(stored, MAPS, axis=-1)], axis=-1)

    def decode(self, params: vae.Params, latents: Array) -> jax.Array:
        return _image(self._over_views(functools.partial(self._decode, params), latents))

    def _encode(self, params: vae.Params, pictures: Array) -> jax.Array:
        return self._over_views(functools.partial(vae.encode, self.autoencoder, params), pictures)

    def _decode(self, params: vae.Params, latents: jax.Array) -> jax.Array:
        if max(latents.shape[-3:-1]) > self.tile:
            return vae.decode_tiled(self.autoencoder, params, latents, self.tile)
        return vae.decode(self.autoencoder, params, latents)

    def _over_views(self, function: Callable[[jax.Array], jax.Array], views: Array) -> jax.Array:
        """``function`` of every view [..., H, W, C] of [..., V, H, W, C], or of the canvas that they make.

        A view after the other: the memory of one view of each grid, not of all.
        """
        if not self.whole_grid:
            return jnp.moveaxis(jax.lax.map(function, jnp.moveaxis(jnp.asarray(views), -4, 0)), 0, -4)
        return to_views(function(to_grid(views)), views.shape[-4])


_CODECS = {codec.codec: codec for codec in (PixelCodec, AutoencoderCodec)}


def codec_class(name: str) -> type:
    """The codec called ``name``.

    Raises:
      UserError: there is none.
    """
    if name not in _CODECS:
        raise UserError(f"config.codec.codec: found {name!r}, expected one of {', '.join(_CODECS)}.")
    return _CODECS[name]


def _image(scaled: Array) -> Array:
    """[-1, 1] to uint8."""
    return ((scaled.astype(np.float32) + np.float32(1.0)) * np.float32(127.5)).round().clip(0, 255).astype(np.uint8)
