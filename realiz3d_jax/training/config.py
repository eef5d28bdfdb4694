"""The schema of a training run: every key that a file in ``configs/`` may set, with its unit and its default.

A config file returns ``config_dict(TrainConfig(...))``; a run reads it back with ``from_config_dict``. So an unknown key
cannot pass, and a key exists only where a dataclass field does.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, TypeVar

import ml_collections

from realiz3d_jax.diffusion.schedule import Schedule
from realiz3d_jax.errors import UserError
from realiz3d_jax.models.dit import DiTConfig

Dataclass = TypeVar("Dataclass")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, with the update of frozen blocks withheld altogether (see ``training.optimizer``).

    Attributes:
      learning_rate: the peak.
      schedule: after ``warmup_steps`` of linear warm-up "constant", "cosine" (to zero at the last step) or "trapezoid"
        (constant, then linearly to zero over the last fifth of the steps: a run can be prolonged before that).
      clip_norm: the largest global norm of the trainable gradients; 0 does not clip.
    """

    learning_rate: float = 5e-5
    schedule: str = "constant"
    warmup_steps: int = 0
    b1: float = 0.9
    b2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    clip_norm: float = 1.0


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What is read, and in which batches.

    Attributes:
      directory: the folder that ``realiz3d_jax.prepare`` filled.
      size: the side of one view, pixels.
      batch_grids: grids of V views in one global batch; a multiple of the mesh's devices.
      render_fraction: the share of synthetic looks among the photos of pre-training.
      caption_dropout: the probability that a caption is replaced by the empty one, for classifier-free guidance.
      text_channels, text_tokens: the word encoder's width and its longest caption, begin token included.
      threads: decoding threads a stream.
    """

    directory: str = "datasets"
    size: int = 32
    batch_grids: int = 8
    render_fraction: float = 0.15
    caption_dropout: float = 0.1
    text_channels: int = 64
    text_tokens: int = 20
    threads: int = 2


@dataclasses.dataclass(frozen=True)
class InitConfig:
    """Where parameters that this stage does not make itself come from.

    Attributes:
      source: a workdir or a released ``.safetensors``, whose partitions are taken over; empty: all are made afresh.
      partitions: the partitions taken from it.
      command: what makes ``source``; the error message quotes it when it is missing.
    """

    source: str = ""
    partitions: tuple[str, ...] = ()
    command: str = ""


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """How often things are written, in steps; 0 is never.

    Attributes:
      metrics_every: averaged metrics to ``metrics.jsonl``, TensorBoard and the terminal.
      samples_every: a grid of samples of held-out objects into TensorBoard.
      checkpoint_every: checkpoints; one is always written at the end.
      checkpoints_kept: the newest that are kept.
    """

    metrics_every: int = 50
    samples_every: int = 0
    checkpoint_every: int = 500
    checkpoints_kept: int = 2


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """The device mesh; -1 takes what is left. ``data`` replicates parameters, ``fsdp`` shards them."""

    data: int = -1
    fsdp: int = 1


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One stage of one method on one model.

    Attributes:
      stage: a stage of the method.
      task: "texture" (normal and position maps) or "text_to_multiview" (four fixed viewpoints).
      workdir: where the run lives unless ``--workdir`` says otherwise.
      steps: how many iterations, of both kinds together.
      ema_decay: of the exponential moving average of the trained partitions, which sampling uses; early on the average is
        shorter, (1 + n) / (10 + n).
      timestep_weight_cap: the largest weight of a noisy timestep in the loss (``diffusion.loss.timestep_weight``); 1 is the
        paper's plain mean squared error.
      abort_after: so many non-finite steps in a row end the run with an error.
      method: ``name`` and the options of that method.
    """

    stage: str
    workdir: str
    steps: int
    model: DiTConfig
    method: Mapping[str, Any]
    task: str = "texture"
    seed: int = 0
    ema_decay: float = 0.999
    timestep_weight_cap: float = 1.0
    abort_after: int = 10
    init: InitConfig = InitConfig()
    diffusion: Schedule = dataclasses.field(default_factory=Schedule)
    optimizer: OptimizerConfig = OptimizerConfig()
    data: DataConfig = DataConfig()
    mesh: MeshConfig = MeshConfig()
    log: LogConfig = LogConfig()


def config_dict(config: TrainConfig) -> ml_collections.ConfigDict:
    """``config`` as the locked ``ConfigDict`` that flags override."""
    return ml_collections.ConfigDict(dataclasses.asdict(config))


def from_config_dict(values: Mapping[str, Any]) -> TrainConfig:
    """The schema's view of a config.

    Raises:
      UserError: a key is unknown, missing, or of another type than its field.
    """
    plain = values.to_dict() if isinstance(values, ml_collections.ConfigDict) else values
    return _build(TrainConfig, plain, "config")


def to_json(config: TrainConfig) -> str:
    """``config`` as JSON; ``from_config_dict(json.loads(...))`` gives it back."""
    return json.dumps(dataclasses.asdict(config), indent=2)


def _build(schema: type[Dataclass], values: Mapping[str, Any], path: str) -> Dataclass:
    fields = {field.name: field for field in dataclasses.fields(schema)}
    if unknown := sorted(set(values) - set(fields)):
        raise UserError(f"{path}.{unknown[0]}: there is no such key; {path} has {', '.join(fields)}.")
    required = [
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing := sorted(set(required) - set(values)):
        raise UserError(f"{path}.{missing[0]}: not set; expected a value of type {fields[missing[0]].type}.")
    return schema(**{name: _value(fields[name].type, value, f"{path}.{name}") for name, value in values.items()})


def _value(kind: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, path)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind in (int, float, str, bool) and type(value) is not kind:
        raise UserError(f"{path}: found {value!r} of type {type(value).__name__}, expected {kind.__name__}.")
    return tuple(value) if isinstance(value, list | tuple) else value
