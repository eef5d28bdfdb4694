"""Builds what a config names: the model, a stage of its method, the settings of its streams."""

import dataclasses

import jax

from realiz3d_jax.config.schema import TrainConfig
from realiz3d_jax.data.pipeline import StreamConfig
from realiz3d_jax.errors import UserError
from realiz3d_jax.method import interface
from realiz3d_jax.method.interface import Params, Stage
from realiz3d_jax.method.model import Model
from realiz3d_jax.models import attention, control
from realiz3d_jax.models.text import TextEncoder


def make_model(config: TrainConfig) -> Model:
    """The model of a config.

    Raises:
      UserError: method, task or attention back end do not exist.
    """
    options = dict(config.method)
    method = interface.load(options.pop("name", ""), options)
    if config.task not in control.TASKS:
        raise UserError(f"config.task: found {config.task!r}, expected one of {', '.join(control.TASKS)}.")
    attention.check_backend(config.model.attention)
    return Model(config.model, method, config.task, config.diffusion, config.codec, config.viewpoints)


def find_stage(model: Model, name: str) -> Stage:
    """The stage called ``name`` of the model's method.

    Raises:
      UserError: it has no such stage, or nothing trains in it.
    """
    stages = model.method.stages()
    if name not in stages:
        raise UserError(f"config.stage: found {name!r}, expected one of {', '.join(stages)}.")
    if not stages[name].trainable:
        raise UserError(
            f"config.stage: no partition trains in the stage {name!r} of this method; expected at least one in "
            "``Stage.trainable`` (method/interface.py)."
        )
    return stages[name]


def outline(config: TrainConfig) -> tuple[Stage, Params]:
    """A config's stage and the shapes of its partitions; the attention may be another platform's.

    Raises:
      UserError: as ``make_model`` and ``find_stage``, except for the attention.
    """
    anywhere = dataclasses.replace(config, model=dataclasses.replace(config.model, attention="xla"))
    model = make_model(anywhere)
    stage = find_stage(model, config.stage)
    return stage, jax.eval_shape(lambda: model.init(stage.partitions, jax.random.key(0)))


def stream_config(config: TrainConfig, encoder: TextEncoder | None) -> StreamConfig:
    """The settings of a run's streams; ``encoder`` encodes the captions, None if they are already encoded."""
    return StreamConfig(config.data, encoder, geometry=config.task == "texture")
