"""Opening a trained model for inference: the one that ships, an exported checkpoint, or a workdir."""

import dataclasses
import functools
import os
import pathlib

import jax
from jax.sharding import Mesh

from realiz3d_jax import sharding
from realiz3d_jax.checkpoints import converted, exported
from realiz3d_jax.checkpoints.bases import SHIPPED_BASE
from realiz3d_jax.checkpoints.encoders import Encoders
from realiz3d_jax.config.build import find_stage, make_model
from realiz3d_jax.config.schema import SamplingConfig, TrainConfig
from realiz3d_jax.method.interface import Params, Stage
from realiz3d_jax.method.model import Model
from realiz3d_jax.models.text import TextEncoder
from realiz3d_jax.sampling.generator import Generator
from realiz3d_jax.sharding import DeviceConfig

SHIPPED = {
    "base": SHIPPED_BASE,
    "texture": exported.PRETRAINED / "shapes_texture.safetensors",
    "text_to_multiview": exported.PRETRAINED / "shapes_text_to_multiview.safetensors",
}
"""The models of the shapes benchmark that ship with the project: the base model, and one finished model for each task."""


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A trained model, ready to sample from.

    Attributes:
      source: where it was read from.
      params: one copy on every device of ``device_mesh``.
      checksum: SHA-256 of its parameters, in hexadecimal.
    """

    source: pathlib.Path
    config: TrainConfig
    model: Model
    stage: Stage
    device_mesh: Mesh
    params: Params
    checksum: str

    @functools.cached_property
    def encoders(self) -> Encoders:
        """The files of its encoders; nothing is read yet."""
        return Encoders(self.config)

    @functools.cached_property
    def encoder(self) -> TextEncoder:
        """The text encoder, read on first use.

        Raises:
          UserError: it is missing, damaged or another one.
        """
        return self.encoders.open_text(list(self.device_mesh.devices.flat))

    def generator(self, sampling: SamplingConfig) -> Generator:
        """Returns a generator that draws images from the model; raises UserError as ``encoder`` does."""
        codec_params = self.encoders.open_codec_params(self.device_mesh)
        return Generator(self.model, self.encoder, sampling, codec_params)

    @property
    def controlled(self) -> bool:
        """Whether the model takes a control."""
        return "control" in self.stage.partitions


def read_config(source: str | os.PathLike[str], encoders_folder: str = "") -> TrainConfig:
    """The config of a trained model; arguments and errors as for ``open_model``."""
    config = exported.read_config(source)
    beside = exported.find(source).parent
    if not encoders_folder and (beside / converted.TEXT_ENCODER).is_file():
        encoders_folder = str(beside)  # a converted model's own, wherever its folder has been moved
    if encoders_folder:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, encoders=encoders_folder))
    return config


def open_model(
    source: str | os.PathLike[str],
    encoders_folder: str = "",
    devices: list[jax.Device] | None = None,  # pyright: ignore[reportInvalidTypeForm]  # jaxlib has no stubs
) -> Pretrained:
    """Reads an exported checkpoint, a converted model's folder, or the newest checkpoint of a workdir (averaged parameters).

    Args:
      encoders_folder: takes the place of ``config.data.encoders``, unless it is empty.
      devices: that hold the parameters; all by default.

    Raises:
      UserError: the source is missing or damaged, or its parameters are not those that its config describes.
    """
    config = read_config(source, encoders_folder)
    model = make_model(config)
    stage = find_stage(model, config.stage)
    device_mesh = sharding.make_device_mesh(DeviceConfig(), devices)
    everywhere = sharding.replicated(device_mesh)
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere),
        jax.eval_shape(lambda: model.init(stage.partitions, jax.random.key(0))),
    )
    params = exported.read_params(source, like)
    return Pretrained(pathlib.Path(source), config, model, stage, device_mesh, params, exported.checksum(params))
