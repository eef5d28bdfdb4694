"""The schema of a training run: every key that a file in ``configs/`` may set, with its unit and its default.

A config file returns ``config_dict(TrainConfig(...))``; a run reads it back with ``from_config_dict``. So an unknown key
cannot pass, and a key exists only where a dataclass field does.
"""

import dataclasses
import difflib
import json
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import ml_collections

from realiz3d_jax.config import renamed
from realiz3d_jax.data.config import DataConfig
from realiz3d_jax.diffusion import samplers
from realiz3d_jax.diffusion.ddpm import DDPM
from realiz3d_jax.diffusion.process import Process, process_class
from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.cameras import Camera
from realiz3d_jax.models import backbone
from realiz3d_jax.models.codec import Codec, PixelCodec, codec_class
from realiz3d_jax.models.control import VIEWPOINTS
from realiz3d_jax.sharding import DeviceConfig
from realiz3d_jax.views import AZIMUTHS

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Dataclass = TypeVar("Dataclass", bound="DataclassInstance")

SAMPLERS = ("ddim", "dpm++")
SPACINGS = ("trailing", "leading", "linspace")


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
class InitConfig:
    """Source of the parameters that the stage does not initialise.

    Attributes:
      source: a workdir or an exported checkpoint, whose partitions are taken over; empty: all are initialised at random.
      partitions: the partitions taken from it.
      command: the command that makes ``source``, quoted in the error message if it is missing.
      unfinished: whether an unfinished run may be taken over.
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
class SamplingConfig:
    """How images are drawn from a model; the defaults are the paper's where it states one.

    Attributes:
      sampler: "ddim" or "dpm++" (DPM-Solver++ 2M).
      spacing: of the timesteps, "trailing" (from pure noise on), "leading" or "linspace".
      steps: S, evaluations of the model (twice that with guidance).
      guidance_scale: of the classifier-free guidance, on the text only (not stated in the paper).
      eta: DDIM's share of fresh noise, 0 to 1.
      block_max: B_max, the fraction of the blocks that always run in synthetic mode.
      timestep_max: t_max, at and above which all blocks run in synthetic mode.
    """

    sampler: str = "ddim"
    spacing: str = "trailing"
    steps: int = 50
    guidance_scale: float = 3.0
    eta: float = 0.0
    block_max: float = 0.3
    timestep_max: int = 950

    def __post_init__(self) -> None:
        checks = {
            "sampler": (self.sampler in SAMPLERS, " or ".join(SAMPLERS)),
            "spacing": (self.spacing in SPACINGS, ", ".join(SPACINGS)),
            "steps": (1 <= self.steps <= 1000, "1 to 1000"),
            "guidance_scale": (math.isfinite(self.guidance_scale), "a finite number"),
            "eta": (0.0 <= self.eta <= 1.0, "0 to 1"),
            "block_max": (0.0 <= self.block_max <= 1.0, "a fraction of the blocks, 0 to 1"),
            "timestep_max": (0 <= self.timestep_max <= 1000, "0 to 1000 (1000 shifts none)"),
        }
        for name, (holds, expected) in checks.items():
            if not holds:
                raise UserError(f"{name}: found {getattr(self, name)!r}, expected {expected}.")

    def make_sampler(self) -> samplers.Sampler:
        """The sampler itself."""
        return samplers.DDIM(self.eta) if self.sampler == "ddim" else samplers.DPMSolverPP2M()


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
      timestep_weight_cap: the largest weight of a timestep in the loss (``diffusion.ddpm``, eq. 3 and 6;
        ``diffusion.rectified_flow``, eq. 5); 1 is the paper's plain mean squared error.
      accumulation: parts that a batch is computed in, one after the other, which holds the activations of one at a time; the
        gradient is that of the whole batch.
      abort_after: so many non-finite steps in a row end the run with an error.
      model: the backbone, by its ``name``, and its sizes.
      diffusion: the process, by its ``name``, and its settings, such as the ``prediction`` that the model makes.
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
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    devices: DeviceConfig = dataclasses.field(default_factory=DeviceConfig)
    log: LogConfig = LogConfig()
    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)


_VARIANTS: dict[type, tuple[str, Callable[[str], type]]] = {
    backbone.Config: ("dit", backbone.config_class),
    Process: ("ddpm", process_class),
    Codec: ("pixel", codec_class),
}
"""Fields of several possible classes: the default of the key ``name``, and the function that finds the class of a name."""


def is_latent(config: TrainConfig) -> bool:
    """Whether the model works on images and captions that pretrained encoders have encoded, and reads encoded data."""
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
    """``from_config_dict`` of a stored config, whose keys may have their earlier names (see ``config.renamed``).

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
        near = difflib.get_close_matches(unknown[0], fields, 1)
        meant = f" Did you mean {path}.{near[0]}?" if near else ""
        raise UserError(f"{path}.{unknown[0]}: there is no such key; {path} has {', '.join(fields)}.{meant}")
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
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return build(kind, value, path)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind in (int, float, str, bool) and type(value) is not kind:
        raise UserError(f"{path}: found {value!r} of type {type(value).__name__}, expected {kind.__name__}.")
    return tuple(value) if isinstance(value, list | tuple) else value
