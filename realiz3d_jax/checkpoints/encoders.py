"""Opens the pretrained encoders of a latent model from a folder written by ``realiz3d_jax.convert``.

Training on encoded data needs only the encoders' checksums, which are read from the files' headers.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from realiz3d_jax import sharding
from realiz3d_jax.checkpoints import converted
from realiz3d_jax.checkpoints.importers import huggingface
from realiz3d_jax.config.schema import TrainConfig, is_latent
from realiz3d_jax.errors import UserError
from realiz3d_jax.method.interface import Params
from realiz3d_jax.models.t5 import T5Config
from realiz3d_jax.models.t5_text import T5Encoder
from realiz3d_jax.models.text import TextEncoder, WordEncoder
from realiz3d_jax.models.tokenizer import Tokenizer
from realiz3d_jax.models.vae import VAEConfig
from realiz3d_jax.sharding import DeviceConfig

_CAPTIONS = 8
"""Captions encoded at once; with more devices than this, one per device."""


@dataclasses.dataclass(frozen=True)
class Encoders:
    """The text encoder and the autoencoder named by a config; headers are read once, arrays when they are opened.

    Attributes:
      config: config of their model; its ``data.encoders`` is their folder.
    """

    config: TrainConfig

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """Everything encoded data depend on: the SHA-256 of both encoders, and whether the autoencoder encodes whole grids.

        Raises:
          UserError: an encoder is missing, damaged, or does not match the config.
        """
        return {
            "autoencoder": _facts(self.config, converted.AUTOENCODER)["parameters_sha256"],
            "text_encoder": _facts(self.config, converted.TEXT_ENCODER)["parameters_sha256"],
            "whole_grid": self.config.codec.whole_grid,
        }

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 of ``identity``, in hexadecimal; "" for a model that works on pixels and words.

        Raises:
          UserError: as ``identity``, or the model was trained with other encoders.
        """
        if not is_latent(self.config):
            return ""
        found = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()
        expected = self.config.data.encoders_sha256
        if expected and found != expected:
            raise UserError(
                f"{self.config.data.encoders}: holds encoders with SHA-256 {found[:16]}..., but the model was trained with "
                f"those of {expected[:16]}... Pass the folder of the latter by --encoders DIR."
            )
        return found

    def open_text(self, devices: list[jax.Device] | None = None) -> TextEncoder:
        """Opens the text encoder; a pretrained one is sharded over ``devices`` (all by default) by ``sharding.RULES``.

        Raises:
          UserError: as ``sha256``, or the tokenizer is missing.
        """
        config, data = self.config, self.config.data
        if not self.sha256:
            return WordEncoder(data.text_channels, data.text_tokens)
        tokenizer = Tokenizer(_path(config, huggingface.TOKENIZER))
        device_mesh = sharding.make_device_mesh(DeviceConfig(data=1, fsdp=-1), devices)

        def lay(params: Params) -> Params:
            return sharding.params_sharding({"text_encoder": params}, device_mesh)["text_encoder"]

        found = converted.read(_path(config, converted.TEXT_ENCODER), T5Config, lay)
        split = NamedSharding(device_mesh, PartitionSpec("fsdp"))
        batch = max(_CAPTIONS, device_mesh.size)
        return T5Encoder(found.config, found.params, tokenizer, data.text_tokens, batch, split)

    def open_codec_params(self, device_mesh: Mesh) -> Params | None:
        """Reads the codec's parameters, replicated on every device of ``device_mesh``; None if the codec has none.

        Raises:
          UserError: as ``sha256``.
        """
        if not self.sha256:
            return None
        everywhere = sharding.replicated(device_mesh)
        lay = functools.partial(jax.tree.map, lambda _: everywhere)
        return converted.read(_path(self.config, converted.AUTOENCODER), VAEConfig, lay).params


def _path(config: TrainConfig, name: str) -> pathlib.Path:
    return pathlib.Path(config.data.encoders) / name


def _facts(config: TrainConfig, name: str) -> dict:
    """Returns the facts of an encoder's file, after checking that the encoder matches the config."""
    path = _path(config, name)
    if not config.data.encoders or not path.is_file():
        raise UserError(
            f"config.data.encoders: {path} does not exist; expected the folder of a converted text-to-image model. Make it by\n"
            "  python -m realiz3d_jax.convert --hub OWNER/NAME --output pretrained/NAME\n"
            "or pass its folder by --encoders DIR (train: --config.data.encoders=DIR)."
        )
    kind = {converted.AUTOENCODER: VAEConfig, converted.TEXT_ENCODER: T5Config}[name]
    found, facts = converted.read_header(path, kind)
    if name == converted.AUTOENCODER:
        asked = {"codec.autoencoder.scale": (config.codec.autoencoder.scale, found.scale)}
        asked["codec.autoencoder.shift"] = (config.codec.autoencoder.shift, found.shift)
        asked["codec.autoencoder.latent_channels"] = (config.codec.channels, found.latent_channels)
        asked["codec.autoencoder.channels"] = (config.codec.autoencoder.channels, found.channels)
    else:
        asked = {"data.text_channels": (config.data.text_channels, found.width)}
    for field, (wanted, there) in asked.items():
        if wanted != there:
            raise UserError(
                f"{path}: has {there} for config.{field}; expected {wanted}. Pass the encoders of this model."
            )
    return facts
