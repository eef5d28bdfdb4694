"""Codecs between images and latents: pixels as they are, or the autoencoder of a latent diffusion model.

Datasets store an intermediate form: the images themselves, or the moments that an autoencoder computed once, from which every
step can draw a latent. Encoding and decoding take the codec's parameters; reading the stored form takes none, so training on
prepared data needs no autoencoder.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from realiz3d_jax.errors import UserError
from realiz3d_jax.models import vae
from realiz3d_jax.models.vae import VAEConfig
from realiz3d_jax.views import to_grid, to_views

MAPS = 2
"""Pictures that control the texturing task: normals and positions, three channels each."""


class Codec(Protocol):
    """Encodes, stores and decodes images; all methods take arrays with any leading axes, the last of which are a grid's views.

    Attributes:
      name: of the codec in a config.
      channels: C of a latent.
      control_channels: channels of the texturing task's control, as the model takes it.
      factor: side of an image over the side of its latent.
      bound: the largest absolute value of a latent; None if latents are unbounded.
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    @property
    def name(self) -> str: ...
    @property
    def channels(self) -> int: ...
    @property
    def control_channels(self) -> int: ...
    @property
    def factor(self) -> int: ...
    @property
    def bound(self) -> float | None: ...

    def init(self, key: jax.Array) -> Any:
        """Fresh parameters; None if the codec has none."""
        ...

    def encode(self, params: Any, images: jax.Array) -> jax.Array:
        """The stored form of images uint8[..., V, H, W, 3]."""
        ...

    def encode_control(self, params: Any, maps: jax.Array) -> jax.Array:
        """The stored form of normal and position maps float32[..., V, H, W, 6] in [0, 1], 0 in the background."""
        ...

    def latents(self, stored: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Latents float32[..., V, h, w, C] from what ``encode`` returned: drawn with the key, the most likely ones without."""
        ...

    def control(self, stored: jax.Array) -> jax.Array:
        """The control float32[..., V, h, w, control channels] from what ``encode_control`` returned."""
        ...

    def decode(self, params: Any, latents: jax.Array) -> jax.Array:
        """Images uint8[..., V, H, W, 3]: rounded, and clipped to what an image can hold."""
        ...


@dataclasses.dataclass(frozen=True)
class PixelCodec:
    """Pixels as latents, scaled to [-1, 1], and control maps as they are; the codec has no parameters."""

    name: str = "pixel"
    channels = 3
    control_channels = 3 * MAPS
    factor = 1
    bound = 1.0

    def init(self, key: jax.Array) -> None:
        return None

    def encode(self, params: None, images: jax.Array) -> jax.Array:
        return images

    def encode_control(self, params: None, maps: jax.Array) -> jax.Array:
        return maps

    def latents(self, stored: jax.Array, key: jax.Array | None = None) -> jax.Array:
        return stored.astype(np.float32) / np.float32(127.5) - np.float32(1.0)

    def control(self, stored: jax.Array) -> jax.Array:
        return stored

    def decode(self, params: None, latents: jax.Array) -> jax.Array:
        return _image(latents)


@dataclasses.dataclass(frozen=True)
class AutoencoderCodec:
    """Latents of an ``AutoencoderKL``; parameters as ``vae.init`` makes them.

    The stored form is the moments, float[..., V, h, w, 2 C]; for a control, the moments of normals and positions concatenated.
    The latents of a control are always the most likely ones.

    Attributes:
      autoencoder: its sizes.
      whole_grid: whether a grid's views are encoded and decoded as one picture; otherwise one by one, independently.
      tile: side in latent pixels; larger pictures are decoded in overlapping tiles of this side (``vae.decode_tiled``).
    """

    autoencoder: VAEConfig = dataclasses.field(default_factory=VAEConfig)
    whole_grid: bool = False
    tile: int = 128
    name: str = "autoencoder"
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

    def encode(self, params: vae.Params, images: jax.Array) -> jax.Array:
        return self._encode(params, images.astype(jnp.float32) / 127.5 - 1.0)

    def encode_control(self, params: vae.Params, maps: jax.Array) -> jax.Array:
        pictures = jnp.split(maps.astype(jnp.float32) * 2.0 - 1.0, MAPS, axis=-1)
        return jnp.concatenate([self._encode(params, picture) for picture in pictures], axis=-1)

    def latents(self, stored: jax.Array, key: jax.Array | None = None) -> jax.Array:
        return vae.latents(self.autoencoder, stored, key)

    def control(self, stored: jax.Array) -> jax.Array:
        return jnp.concatenate([self.latents(moments) for moments in jnp.split(stored, MAPS, axis=-1)], axis=-1)

    def decode(self, params: vae.Params, latents: jax.Array) -> jax.Array:
        return _image(self._over_views(functools.partial(self._decode, params), latents))

    def _encode(self, params: vae.Params, pictures: jax.Array) -> jax.Array:
        return self._over_views(functools.partial(vae.encode, self.autoencoder, params), pictures)

    def _decode(self, params: vae.Params, latents: jax.Array) -> jax.Array:
        if max(latents.shape[-3:-1]) > self.tile:
            return vae.decode_tiled(self.autoencoder, params, latents, self.tile)
        return vae.decode(self.autoencoder, params, latents)

    def _over_views(self, function: Callable[[jax.Array], jax.Array], views: jax.Array) -> jax.Array:
        """Applies ``function`` to every view [..., H, W, C] of [..., V, H, W, C], or to the canvas that the views form.

        Views run one after another, with the memory of one view of each grid.
        """
        if not self.whole_grid:
            return jnp.moveaxis(jax.lax.map(function, jnp.moveaxis(jnp.asarray(views), -4, 0)), 0, -4)
        return to_views(function(to_grid(views)), views.shape[-4])


_CODECS = {codec.name: codec for codec in (PixelCodec, AutoencoderCodec)}


def codec_class(name: str) -> type:
    """The codec called ``name``.

    Raises:
      UserError: no codec has this name.
    """
    if name not in _CODECS:
        raise UserError(f"config.codec.name: found {name!r}, expected one of {', '.join(_CODECS)}.")
    return _CODECS[name]


def _image(scaled: jax.Array) -> jax.Array:
    """Converts values in [-1, 1] to uint8, rounded and clipped."""
    return ((scaled.astype(np.float32) + np.float32(1.0)) * np.float32(127.5)).round().clip(0, 255).astype(np.uint8)
