"""The schema of a training run: every key that a file in ``configs/`` may set, with its unit and its default.

A config file returns ``config_dict(TrainConfig(...))``; a run reads it back with ``from_config_dict``. So an unknown key
cannot pass, and a key exists only where a dataclass field does.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import ml_collections

from realiz3d_jax.config import renamed
from realiz3d_jax.diffusion.ddpm import DDPM
from realiz3d_jax.diffusion.process import Process, process_class
from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.cameras import AZIMUTHS, STANDARD_RIG, Camera, Rig
from realiz3d_jax.models import backbone
from realiz3d_jax.models.codec import Codec, PixelCodec, codec_class
from realiz3d_jax.models.control import VIEWPOINTS
from realiz3d_jax.sampling.generator import SamplingConfig

Dataclass = TypeVar("Dataclass")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, with the update of frozen blocks withheld altogether (see ``training.optimizer``).

    Attributes:
      learning_rate: the peak.
      schedule: after ``warmup_steps`` of linear warm-up "constant", "cosine" (to zero at the last step) or "trapezoid"
        (constant, then linearly to zero over the last fifth of the steps: a run can be prolonged before that).
      control_factor: on the learning rate of the control embedding, which starts at zero beside a trained backbone; the
        paper states one learning rate, a factor of 1.
      clip_norm: the largest global norm of the trainable gradients; 0 does not clip.
    """

    learning_rate: float = 5e-5
    schedule: str = "constant"
    warmup_steps: int = 0
    b1: float = 0.9
    b2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    control_factor: float = 1.0
    clip_norm: float = 1.0


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What is read, and in which batches.

    Attributes:
      directory: the folder that ``realiz3d_jax.prepare`` filled.
      collection: what its datasets' names begin with, "shapes" those of the shapes benchmark.
      rig: the cameras of the controlled views; a dataset of other cameras is refused.
      views: the four of the rig's views that make a grid.
      size: the side of one view, pixels.
      batch_grids: grids of V views in a batch.
      batch_of: whose batch that is: "run", of all devices together, whose number divides it, or "device", of each.
      render_fraction: the share of synthetic looks among the photos of pre-training.
      caption_dropout: the probability that a caption is replaced by the empty one, for classifier-free guidance.
      text_encoder: "words" (the shapes benchmark's own) or "t5".
      text_channels, text_tokens: its width and its longest caption, begin or end token included.
      encoders: the folder that ``realiz3d_jax.convert`` wrote, with text encoder and autoencoder; empty for "words" and pixels.
      encoders_sha256: of the encoders that a run's data was encoded with; a run sets it, and its samples are held to it.
      base_sha256: of the base model that a run starts from; a run sets it, and its real images must be that one's.
      view_prompt: how a caption is prompted for the self-generated images of a view.
      threads: decoding threads a stream.
    """

    directory: str = "datasets"
    collection: str = "shapes"
    rig: Rig = STANDARD_RIG
    views: tuple[int, ...] = (0, 1, 2, 3)
    size: int = 32
    batch_grids: int = 8
    batch_of: str = "run"
    render_fraction: float = 0.15
    caption_dropout: float = 0.1
    text_encoder: str = "words"
    text_channels: int = 64
    text_tokens: int = 20
    encoders: str = ""
    encoders_sha256: str = ""
    base_sha256: str = ""
    view_prompt: str = "{caption}, {view} view"
    threads: int = 2


@dataclasses.dataclass(frozen=True)
class InitConfig:
    """Where parameters that this stage does not make itself come from.

    Attributes:
      source: a workdir or a released ``.safetensors``, whose partitions are taken over; empty: all are made afresh.
      partitions: the partitions taken from it.
      command: what makes ``source``; the error message quotes it when it is missing.
      unfinished: whether a run that has not come to its end may be taken over.
    """

    source: str = ""
    partitions: tuple[str, ...] = ()
    command: str = ""
    unfinished: bool = False


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """How often things are written, in steps; 0 is never.

    Attributes:
      metrics_every: averaged metrics to ``metrics.jsonl``, TensorBoard and the terminal; at least 1.
      samples_every: a grid of samples of held-out objects into TensorBoard.
      checkpoint_every: checkpoints; one is always written at the end.
      checkpoints_kept: the newest that are kept.
    """

    metrics_every: int = 50
    samples_every: int = 0
    checkpoint_every: int = 500
    checkpoints_kept: int = 2


@dataclasses.dataclass(frozen=True)
class DeviceConfig:
    """The device mesh; -1 takes what is left. ``data`` replicates parameters, ``fsdp`` shards them."""

    data: int = -1
    fsdp: int = 1


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One stage of one method on one model.

    Attributes:
      stage: a stage of the method.
      task: "texture" (normal and position maps) or "text_to_multiview" (four fixed viewpoints).
      viewpoints: what "text_to_multiview" adds its viewpoints to, "tokens" or, as the paper, "latents".
      workdir: where the run lives unless ``--workdir`` says otherwise.
      steps: how many iterations, of both kinds together.
      ema_decay: of the exponential moving average of the trained partitions, which sampling uses; early on the average is
        shorter, (1 + n) / (10 + n).
      timestep_weight_cap: the largest weight of a noisy timestep in the loss (``diffusion.ddpm``, eq. 3); 1 is the paper's
        plain mean squared error.
      accumulation: parts that a batch is computed in, one after the other, which holds the activations of one at a time; the
        gradient is that of the whole batch.
      abort_after: so many non-finite steps in a row end the run with an error.
      model: the backbone, by its ``name``, and its sizes.
      diffusion: the process, by its ``name``, and its settings.
      codec: by its ``name``, "pixel" or "autoencoder", and its sizes.
      method: the method's ``name`` and its options.
      sampling: how images are drawn from the model unless a command says otherwise.
    """

    stage: str
    workdir: str
    steps: int
    model: backbone.Config
    method: Mapping[str, Any]
    task: str = "texture"
    viewpoints: str = "tokens"
    seed: int = 0
    ema_decay: float = 0.999
    timestep_weight_cap: float = 1.0
    accumulation: int = 1
    abort_after: int = 10
    init: InitConfig = InitConfig()
    diffusion: Process = dataclasses.field(default_factory=DDPM)
    codec: Codec = dataclasses.field(default_factory=PixelCodec)
    optimizer: OptimizerConfig = OptimizerConfig()
    data: DataConfig = DataConfig()
    devices: DeviceConfig = DeviceConfig()
    log: LogConfig = LogConfig()
    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)


_VARIANTS: dict[type, tuple[str, Callable[[str], type]]] = {
    backbone.Config: ("dit", backbone.config_class),
    Process: ("ddpm", process_class),
    Codec: ("pixel", codec_class),
}
"""Fields of several possible classes: the default of the key ``name``, and the function that finds the class of a name."""


def is_latent(config: TrainConfig) -> bool:
    """Whether the model works on what pretrained encoders make of images and captions, and reads data that is encoded."""
    return config.codec.name != "pixel"


def config_dict(config: Any) -> ml_collections.ConfigDict:
    """``config``, a dataclass, as the locked ``ConfigDict`` that flags override."""
    return ml_collections.ConfigDict(dataclasses.asdict(config))


def from_config_dict(values: Mapping[str, Any]) -> TrainConfig:
    """The schema's view of a config that a file in ``configs/`` and flags state.

    Raises:
      UserError: a key is unknown, missing, of another type than its field, or out of its range.
    """
    plain = values.to_dict() if isinstance(values, ml_collections.ConfigDict) else values
    renamed.refuse(plain)
    config = build(TrainConfig, plain, "config")
    _check_ranges(config)
    return config


def from_stored(values: Mapping[str, Any]) -> TrainConfig:
    """``from_config_dict`` of a config that a run, a checkpoint or an exported model holds; keys may have their earlier names.

    Raises:
      UserError: as ``from_config_dict``, or a key is there under both its earlier and its present name.
    """
    return from_config_dict(renamed.update(values))


def to_json(config: TrainConfig) -> str:
    """``config`` as JSON; ``from_stored(json.loads(...))`` gives it back."""
    return json.dumps(dataclasses.asdict(config), indent=2)


_DTYPES = ("float32", "bfloat16")


def _check_ranges(config: TrainConfig) -> None:
    """Raises UserError unless every value is one that a run can work with."""
    model, data, adam, log = config.model, config.data, config.optimizer, config.log
    checks = {
        "steps": (config.steps, config.steps >= 1, "at least 1"),
        "ema_decay": (config.ema_decay, 0.0 <= config.ema_decay < 1.0, "from 0 up to, but not, 1"),
        "timestep_weight_cap": (config.timestep_weight_cap, config.timestep_weight_cap >= 1.0, "at least 1"),
        "abort_after": (config.abort_after, config.abort_after >= 1, "at least 1"),
        "model.depth": (model.depth, model.depth >= 1, "at least 1"),
        "model.width": (
            model.width,
            model.width > 0 and model.heads > 0 and model.width % 4 == 0 and model.width % model.heads == 0,
            f"a multiple of 4 and of model.heads = {model.heads}",
        ),
        "model.sample_size": (
            model.sample_size,
            model.patch_size > 0 and model.sample_size % model.patch_size == 0,
            f"a multiple of model.patch_size = {model.patch_size}",
        ),
        "model.dtype": (model.dtype, model.dtype in _DTYPES, " or ".join(map(repr, _DTYPES))),
        "model.residual_dtype": (
            model.residual_dtype,
            model.residual_dtype in _DTYPES,
            " or ".join(map(repr, _DTYPES)),
        ),
        "model.positions": (model.positions, model.positions in ("canvas", "view"), '"canvas" or "view"'),
        "model.caption_channels": (
            model.caption_channels,
            model.caption_channels == data.text_channels,
            f"data.text_channels = {data.text_channels}",
        ),
        "optimizer.learning_rate": (adam.learning_rate, adam.learning_rate >= 0.0, "at least 0"),
        "optimizer.control_factor": (adam.control_factor, adam.control_factor >= 0.0, "at least 0"),
        "optimizer.warmup_steps": (adam.warmup_steps, adam.warmup_steps >= 0, "at least 0"),
        "data.size": (
            data.size,
            data.size == model.sample_size * config.codec.factor,
            f"{model.sample_size * config.codec.factor}: model.sample_size = {model.sample_size} times the codec's "
            f"{config.codec.factor}",
        ),
        "model.in_channels": (
            model.in_channels,
            model.in_channels == config.codec.channels,
            f"the codec's {config.codec.channels}",
        ),
        "data.text_encoder": (
            data.text_encoder,
            data.text_encoder == ("t5" if is_latent(config) else "words"),
            '"t5" with an autoencoder, "words" with pixels',
        ),
        "data.batch_grids": (data.batch_grids, data.batch_grids >= 1, "at least 1"),
        "viewpoints": (config.viewpoints, config.viewpoints in VIEWPOINTS, " or ".join(map(repr, VIEWPOINTS))),
        "data.batch_of": (data.batch_of, data.batch_of in ("run", "device"), '"run" or "device"'),
        "accumulation": (config.accumulation, config.accumulation >= 1, "at least 1"),
        "data.caption_dropout": (data.caption_dropout, 0.0 <= data.caption_dropout <= 1.0, "0 to 1"),
        "data.render_fraction": (data.render_fraction, 0.0 <= data.render_fraction <= 1.0, "0 to 1"),
        "log.metrics_every": (log.metrics_every, log.metrics_every >= 1, "at least 1"),
        "log.samples_every": (log.samples_every, log.samples_every >= 0, "at least 0"),
        "log.checkpoint_every": (log.checkpoint_every, log.checkpoint_every >= 0, "at least 0"),
        "log.checkpoints_kept": (log.checkpoints_kept, log.checkpoints_kept >= 1, "at least 1"),
    }
    for name, (found, holds, expected) in checks.items():
        if not holds:
            raise UserError(f"config.{name}: found {found!r}, expected {expected}.")
    view_cameras(config)


def view_cameras(config: TrainConfig) -> tuple[Camera, ...]:
    """The cameras of a grid's views.

    Raises:
      UserError: the rig is none, or ``data.views`` are not four of its views, or no viewpoints that the task knows.
    """
    rig, views = config.data.rig, config.data.views
    cameras = rig.cameras()
    if len(views) != len(AZIMUTHS) or not all(type(view) is int and 0 <= view < len(cameras) for view in views):
        raise UserError(f"config.data.views: found {views!r}, expected four of the rig's {len(cameras)} views, from 0.")
    if config.task == "text_to_multiview":
        azimuths = tuple(rig.azimuths[view] % 360 for view in views)
        if azimuths != AZIMUTHS:
            raise UserError(
                f"config.data.views: found views at azimuths {azimuths}, expected {AZIMUTHS}: the task's viewpoints."
            )
    return tuple(cameras[view] for view in views)


def build(schema: type[Dataclass], values: Mapping[str, Any], path: str) -> Dataclass:
    """The dataclass ``schema`` of nested values; ``path`` names them in messages.

    Raises:
      UserError: a key is unknown, missing or of another type than its field.
    """
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
    if kind in _VARIANTS:
        default, find = _VARIANTS[kind]
        kind = find(value.get("name", default))
    if dataclasses.is_dataclass(kind):
        return build(kind, value, path)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind in (int, float, str, bool) and type(value) is not kind:
        raise UserError(f"{path}: found {value!r} of type {type(value).__name__}, expected {kind.__name__}.")
    return tuple(value) if isinstance(value, list | tuple) else value
