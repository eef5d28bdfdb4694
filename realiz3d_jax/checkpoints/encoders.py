"""The pretrained encoders of a latent model: the folder that ``realiz3d_jax.convert`` wrote, opened when they are needed.

Training on encoded data needs their checksums alone, which are read from the files' headers.
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
from realiz3d_jax.sharding import MeshConfig

_CAPTIONS = 8
"""Encoded at once, or one a device if there are more."""


@dataclasses.dataclass(frozen=True)
class Encoders:
    """The text encoder and the autoencoder that a config names; headers are read once, arrays when they are opened.

    Attributes:
      config: of the model that they belong to; its ``data.encoders`` is their folder.
    """

    config: TrainConfig

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """The SHA-256 of ``autoencoder`` and ``text_encoder``, and how the former is used: encoded data follow from these.

        Raises:
          UserError: they are missing, damaged, or not those that the config describes.
        """
        return {
            "autoencoder": _facts(self.config, converted.AUTOENCODER)["parameters_sha256"],
            "text_encoder": _facts(self.config, converted.TEXT_ENCODER)["parameters_sha256"],
            "whole_grid": self.config.codec.whole_grid,
        }

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 of ``identity``, in hexadecimal; "" of a model that works on pixels and words.

        Raises:
          UserError: as ``identity``, or the model was trained with other encoders.
        """
        if not is_latent(self.config):
            return ""
        found = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()
        expected = self.config.data.encoders_sha256
        if expected and found != expected:
            raise UserError(
                f"{self.config.data.encoders}: are other encoders (SHA-256 {found[:16]}...) than those that the model was "
                f"trained with ({expected[:16]}...). Name the folder of the latter by --encoders DIR."
            )
        return found

    def open_text(self, devices: list[jax.Device] | None = None) -> TextEncoder:
        """The encoder of captions; a pretrained one is split over ``devices`` (all by default) as ``sharding.RULES`` say.

        Raises:
          UserError: as ``sha256``, or there is no tokenizer.
        """
        config, data = self.config, self.config.data
        if not self.sha256:
            return WordEncoder(data.text_channels, data.text_tokens)
        tokenizer = Tokenizer(_path(config, huggingface.TOKENIZER))
        mesh = sharding.make_mesh(MeshConfig(data=1, fsdp=-1), devices)

        def lay(params: Params) -> Params:
            return sharding.params_sharding({"text_encoder": params}, mesh)["text_encoder"]

        found = converted.read(_path(config, converted.TEXT_ENCODER), T5Config, lay)
        split = NamedSharding(mesh, PartitionSpec("fsdp"))
        batch = max(_CAPTIONS, mesh.size)
        return T5Encoder(found.config, found.params, tokenizer, data.text_tokens, batch, split)

    def open_codec_params(self, mesh: Mesh) -> Params | None:
        """The codec's parameters, one copy on every device of ``mesh``; None if it has none.

        Raises:
          UserError: as ``sha256``.
        """
        if not self.sha256:
            return None
        everywhere = sharding.replicated(mesh)
        lay = functools.partial(jax.tree.map, lambda _: everywhere)
        return converted.read(_path(self.config, converted.AUTOENCODER), VAEConfig, lay).params


def _path(config: TrainConfig, name: str) -> pathlib.Path:
    return pathlib.Path(config.data.encoders) / name


def _facts(config: TrainConfig, name: str) -> dict:
    """What the file says of itself, after a check that it is what the config describes."""
    path = _path(config, name)
    if not config.data.encoders or not path.is_file():
        raise UserError(
            f"config.data.encoders: {path} does not exist; expected the folder of a converted text-to-image model. Make it by\n"
            "  python -m realiz3d_jax.convert --hub OWNER/NAME --output pretrained/NAME\n"
            "or name where it lies by --encoders DIR (train: --config.data.encoders=DIR)."
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
                f"{path}: has {there} for config.{field}; expected {wanted}. Name the encoders of this model."
            )
    return facts
