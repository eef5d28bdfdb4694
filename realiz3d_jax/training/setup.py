"""Builds a run from a config: model, stage, device_mesh, initial state, compiled steps."""

import dataclasses
import functools
from collections.abc import Callable

import jax
from jax.sharding import Mesh

from realiz3d_jax import sharding
from realiz3d_jax.checkpoints.encoders import Encoders
from realiz3d_jax.config.build import find_stage, make_model, stream_config
from realiz3d_jax.config.schema import TrainConfig, is_latent
from realiz3d_jax.data import encoded
from realiz3d_jax.data.pipeline import Stream, open_stream
from realiz3d_jax.errors import UserError
from realiz3d_jax.method.interface import Params, Stage
from realiz3d_jax.method.model import Model
from realiz3d_jax.models import backbone, parallel
from realiz3d_jax.models.backbone import Captions
from realiz3d_jax.models.text import TextEncoder
from realiz3d_jax.training import optimizer, sources
from realiz3d_jax.training.state import TrainState, new_state, state_sharding, stream_key
from realiz3d_jax.training.step import Batch, Metrics, StepConfig, make_step


@dataclasses.dataclass(frozen=True)
class Run:
    """The parts of a run that a config determines.

    Attributes:
      config: settings of the run, with the batch of all devices and the checksums of its sources.
      model: the model.
      stage: the stage.
      device_mesh: the device mesh.
      encoder: encoder of captions; None if the data holds encoded captions.
      encoders: files of the text encoder and the autoencoder.
      step_config: settings of a step.
      steps: the compiled step of each kind of iteration, by name.
      abstract_state: shapes, dtypes and shardings of the state.
    """

    config: TrainConfig
    model: Model
    stage: Stage
    device_mesh: Mesh
    encoder: TextEncoder | None
    encoders: Encoders
    step_config: StepConfig
    steps: dict[str, Callable[[TrainState, Batch], tuple[TrainState, Metrics]]]
    abstract_state: TrainState

    def initial_state(self) -> TrainState:
        """Makes the state at step 0: initialised partitions, and those that ``config.init`` reads from its source.

        Raises:
          UserError: the source is missing or of another model.
        """
        init, shapes = self.config.init, self.abstract_state.params
        taken: Params = {}
        if init.source and init.partitions:
            taken = sources.read_init(self.config, {name: shapes[name] for name in init.partitions})
        fresh = tuple(name for name in self.stage.partitions if name not in taken)
        key = stream_key(self.config.seed, "init", 0)

        @functools.partial(jax.jit, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, self.abstract_state))
        def make(taken: Params) -> TrainState:
            params = {**self.model.init(fresh, key), **taken}
            return new_state(
                {name: params[name] for name in self.stage.partitions}, self.stage, self.step_config.optimizer
            )

        return make(taken)

    def open_streams(self) -> dict[str, Stream]:
        """Opens this host's part of every stream that the stage reads."""
        data = self.config.data
        settings = stream_config(self.config, self.encoder)
        names = tuple(dict.fromkeys(kind.stream for kind in self.stage.iterations))
        streams = {
            name: open_stream(
                name,
                settings,
                seed=self.config.seed,
                batch_grids=data.batch_grids,
                host=jax.process_index(),
                hosts=jax.process_count(),
                threads=data.threads,
            )
            for name in names
        }
        if sources.REAL_IMAGES in names:
            sources.check_generated(settings.open("generated"), data.base_sha256)
        return streams

    def put(self, batch: Batch) -> Batch:
        """Converts this host's part of a batch to global arrays, split over all devices."""
        split = sharding.batch_sharding(self.device_mesh)
        return jax.tree.map(lambda array: jax.make_array_from_process_local_data(split, array), batch)


def make_run(
    config: TrainConfig,
    devices: list[jax.Device] | None = None,  # pyright: ignore[reportInvalidTypeForm]  # jaxlib has no stubs
    empty_caption: Captions | None = None,
) -> Run:
    """Builds a run without opening its data streams.

    Args:
      config: settings of the run.
      devices: devices to train on; all by default.
      empty_caption: the encoded empty caption; by default that of the encoder or of the encoded data.

    Raises:
      UserError: the config requests something that does not exist or is inconsistent.
    """
    encoders = Encoders(dataclasses.replace(config, data=dataclasses.replace(config.data, encoders_sha256="")))
    if is_latent(config) and empty_caption is None:  # those of the data that is read now
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, encoders_sha256=encoders.sha256))
    model = make_model(config)
    stage = find_stage(model, config.stage)
    if len(stage.iterations) > 1 and config.steps <= stage.second_warmup:
        first, second = (kind.name for kind in stage.iterations)
        raise UserError(
            f"config.steps: found {config.steps}, but the first {stage.second_warmup} steps of this stage are all {second}, so "
            f"it would run no {first} step; expected more steps, or a shorter warm-up of the method."
        )
    device_mesh = sharding.make_device_mesh(config.devices, devices)
    config = _with_whole_batch(config, device_mesh.size)
    if any(kind.stream == sources.REAL_IMAGES for kind in stage.iterations):
        base = sources.base_checksum(config.init)
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, base_sha256=base))
    encoder = None if is_latent(config) else encoders.open_text()
    if empty_caption is None:
        empty_caption = _empty_caption(config, encoder, encoders)
    step_config = StepConfig(
        model=model,
        stage=stage,
        optimizer=optimizer.make_optimizer(config.optimizer, config.steps, backbone.of(config.model).PARTS, stage),
        seed=config.seed,
        caption_dropout=config.data.caption_dropout,
        ema_decay=config.ema_decay,
        timestep_weight_cap=config.timestep_weight_cap,
        empty_caption=empty_caption,
        accumulation=config.accumulation,
    )
    abstract_state = jax.eval_shape(
        lambda: new_state(model.init(stage.partitions, jax.random.key(0)), stage, step_config.optimizer)
    )
    shardings = state_sharding(abstract_state, device_mesh, config.model)
    abstract_state = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), abstract_state, shardings
    )
    steps = {
        kind.name: jax.jit(
            parallel.on_device_mesh(device_mesh, make_step(step_config, kind)),
            in_shardings=(shardings, sharding.batch_sharding(device_mesh)),
            out_shardings=(shardings, sharding.replicated(device_mesh)),
            donate_argnums=0,
        )
        for kind in stage.iterations
    }
    return Run(config, model, stage, device_mesh, encoder, encoders, step_config, steps, abstract_state)


def _empty_caption(config: TrainConfig, encoder: TextEncoder | None, encoders: Encoders) -> Captions:
    """The encoded empty caption, arrays [...]: the encoder's, or that of the encoded data where there is no encoder."""
    if encoder is not None:
        return jax.tree.map(lambda array: array[0], encoder.encode([""]))
    data = config.data
    return encoded.null_caption(data.directory, data.collection, data.size, encoders.identity, data.text_tokens)


def _with_whole_batch(config: TrainConfig, devices: int) -> TrainConfig:
    """Returns ``config`` with the total batch of all ``devices``.

    Raises:
      UserError: the number of devices times the accumulated parts does not divide the batch.
    """
    data, of_each = config.data, config.data.batch_of == "device"
    whole = data.batch_grids * (devices if of_each else 1)
    parts = devices * config.accumulation
    if whole % parts:
        accumulated = f"config.accumulation = {config.accumulation}"
        factors = [f"the {devices} devices"] * (not of_each) + [accumulated] * (config.accumulation > 1)
        where = "on each device" if of_each else "in total"
        fix = "" if of_each else " With --config.data.batch_of=device it is the batch of each device."
        raise UserError(
            f"config.data.batch_grids: found {data.batch_grids} {where}, expected a multiple of "
            f"{' times '.join(factors)}.{fix}"
        )
    return dataclasses.replace(config, data=dataclasses.replace(data, batch_grids=whole, batch_of="run"))
