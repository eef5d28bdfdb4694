"""Opening a trained model for inference: the one that ships, a release file, or a workdir."""

import dataclasses
import hashlib
import os
import pathlib

import jax

from realiz3d_jax.errors import UserError
from realiz3d_jax.method.interface import Params, Stage
from realiz3d_jax.method.model import Model
from realiz3d_jax.models.text import WordEncoder
from realiz3d_jax.training import release, setup, sharding
from realiz3d_jax.training.config import InitConfig, MeshConfig, TrainConfig

SHIPPED = {
    "base": release.PRETRAINED / "shapes_base.safetensors",
    "texture": release.PRETRAINED / "shapes_texture.safetensors",
    "text_to_multiview": release.PRETRAINED / "shapes_text_to_multiview.safetensors",
}
"""The models of the shapes benchmark that ship with the project: the base model, and one finished model for each task."""

FROM_BASE = InitConfig(
    source=str(SHIPPED["base"]),
    partitions=("backbone",),
    command="python -m realiz3d_jax.train --config configs/base.py\n"
    f"  python -m realiz3d_jax.convert --workdir runs/base --output {SHIPPED['base']}",
)
"""Where every fine-tuning method starts."""


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A trained model, ready to sample from.

    Attributes:
      source: where it was read from.
      params: one copy on every device.
      checksum: SHA-256 of its parameters, in hexadecimal.
    """

    source: pathlib.Path
    config: TrainConfig
    model: Model
    stage: Stage
    encoder: WordEncoder
    params: Params
    checksum: str

    @property
    def controlled(self) -> bool:
        """Whether the model takes a control."""
        return "control" in self.stage.partitions


def open_model(source: str | os.PathLike[str]) -> Pretrained:
    """Reads a release file, or the newest checkpoint of a workdir (averaged parameters).

    Raises:
      UserError: nothing is there, it is damaged, or its parameters are not those that its config describes.
    """
    source = pathlib.Path(source)
    if not source.exists():
        raise UserError(f"{source}: there is no such workdir or release; name one that realiz3d_jax.train has written.")
    config = release.read_config(source)
    model = setup.make_model(config)
    stage = setup.find_stage(model, config.stage)
    everywhere = sharding.replicated(sharding.make_mesh(MeshConfig()))
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere),
        jax.eval_shape(lambda: model.init(stage.partitions, jax.random.key(0))),
    )
    params = release.read_params(source, like)
    return Pretrained(source, config, model, stage, setup.make_encoder(config), params, _checksum(params))


def _checksum(params: Params) -> str:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(jax.device_get(leaf).tobytes())
    return digest.hexdigest()
