"""The training loop.

DO NOT CHANGE THE ORDER OF THE LOOP'S BODY: sample -> save -> next(data) -> step -> record. A checkpoint of step n then holds
the state after n steps and the position of the data before batch n, and a resumed run equals an uninterrupted one.
"""

import contextlib
import dataclasses
import pathlib
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import jax
import numpy as np

from realiz3d_jax import files, progress
from realiz3d_jax.config.schema import TrainConfig, config_dict, to_json
from realiz3d_jax.data.pipeline import Stream
from realiz3d_jax.errors import UserError
from realiz3d_jax.training import monitoring
from realiz3d_jax.training.checkpoint import Checkpoints
from realiz3d_jax.training.optimizer import learning_rate_schedule
from realiz3d_jax.training.previews import Previews
from realiz3d_jax.training.setup import Run, make_run
from realiz3d_jax.training.state import TrainState, unsplit_parameters
from realiz3d_jax.views import VIEWS

_FREE = ("workdir", "log", "devices", "sampling")
"""Settings that a resumed run may change silently: they affect only where it runs and what it logs."""

PREEMPTED = 128 + signal.SIGTERM
"""Exit status of a run that saved and stopped on SIGTERM; not 0, so that a launcher restarts it."""


class NonFiniteError(RuntimeError):
    """Too many consecutive steps had a loss or gradient that is not finite."""


def train(config: TrainConfig, workdir: pathlib.Path) -> TrainState:
    """Trains one stage to its end, from step 0 or from the newest checkpoint in ``workdir``.

    Args:
      config: settings of the run.
      workdir: folder for checkpoints and logs; created if needed.

    Returns:
      the final state, which has been saved.

    Raises:
      UserError: the config, the data, the initial parameters or the workdir are invalid.
      NonFiniteError: ``config.abort_after`` consecutive steps were not finite.
      SystemExit: with status ``PREEMPTED`` after SIGTERM, once a checkpoint has been saved.
    """
    run = make_run(config)
    config = run.config
    workdir = files.writable_directory(workdir)
    streams = run.open_streams()
    busy = f"{workdir}: another process trains here; wait for it, or choose another --workdir."
    alone = files.only_one(workdir / "lock", busy) if jax.process_index() == 0 else contextlib.nullcontext()
    with alone, Checkpoints(workdir, config) as checkpoints:
        latest = checkpoints.latest()
        if latest is None:
            state = run.initial_state()
        else:
            before = checkpoints.config()
            _check_resumed(workdir, latest, before, config)
            state, positions = checkpoints.restore(run.abstract_state)
            _tell_changes(workdir, latest, before, config)
            for name, stream in streams.items():
                stream.set_state(positions[name])
        first = int(state.step)
        print(monitoring.describe_params(state.params, run.stage), flush=True)
        if unsplit := unsplit_parameters(run.abstract_state, run.device_mesh, config.model):
            print(unsplit, file=sys.stderr, flush=True)
        print(
            f"{config.stage} on {run.device_mesh.size} {jax.devices()[0].device_kind} "
            f"(data {run.device_mesh.shape['data']}, fsdp {run.device_mesh.shape['fsdp']}), "
            f"attention: {config.model.attention}, steps {first} to {config.steps}, workdir {workdir}",
            flush=True,
        )
        files.write_text(workdir / "config.json", to_json(dataclasses.replace(config, workdir=str(workdir))))
        devices = list(run.device_mesh.devices.flat)
        with (
            monitoring.Monitor(workdir, config, run.stage, devices, VIEWS, first) as monitor,
            progress.bar(config.stage, config.steps, done=first) as advance,
        ):
            return _loop(run, state, streams, checkpoints, monitor, advance)


def _loop(
    run: Run,
    state: TrainState,
    streams: dict[str, Stream],
    checkpoints: Checkpoints,
    monitor: monitoring.Monitor,
    advance: Callable[..., None],
) -> TrainState:
    config, preempted, previews = run.config, _sigterm_flag(), Previews(run)
    for step in range(int(state.step), config.steps + 1):
        # 1. Draw samples from the current state.
        if config.log.samples_every and step % config.log.samples_every == 0:
            monitor.image("samples", previews(state.sampling_params()), step)
        # 2. Save it, with the data's position before the next batch.
        asked = preempted.is_set()  # read once: a later signal is handled at the next step
        force = asked or step == config.steps
        if force or checkpoints.due(step):
            # Metrics of steps that a resumed run will not repeat must be written before the checkpoint.
            _check(monitor.flush(final=True), config)
        positions = {name: stream.get_state() for name, stream in streams.items()}
        stop = checkpoints.save(step, state, positions, force)
        if stop or asked:
            print(f"stopped on request; saved step {step}", file=sys.stderr, flush=True)
            sys.exit(PREEMPTED)
        if step == config.steps:
            return state
        # 3. Only now take a batch.
        iteration = run.stage.iteration(step)
        batch = next(streams[iteration.stream])
        records = batch.pop("record")
        # 4. Step.
        state, metrics = run.steps[iteration.name](state, run.put(batch))
        # 5. Record; metrics are written one interval late, so that the loop never waits for the device.
        monitor.record(step + 1, iteration, metrics, np.asarray(records))
        note = ""
        if (step + 1) % config.log.metrics_every == 0 and (written := monitor.flush()):
            _check(written, config)
            note = monitoring.summary(written)
        advance(note=note)
    raise AssertionError("the loop returns at its last step")


def _check_resumed(workdir: pathlib.Path, step: int, before: TrainConfig, now: TrainConfig) -> None:
    """Raises UserError if ``workdir`` holds another stage or method, or has passed the requested number of steps."""
    held, asked = ((config.stage, config.method.get("name")) for config in (before, now))
    if held != asked:
        raise UserError(
            f"{workdir}: holds a run of stage {held[0]!r} of the method {held[1]!r}, but this config is for stage "
            f"{asked[0]!r} of {asked[1]!r}. Choose another --workdir."
        )
    _check_schedule(workdir, step, before, now)
    if step > now.steps:
        raise UserError(
            f"config.steps: found {now.steps}, but the checkpoint in the workdir is already at step {step}; "
            "expected at least as many. Choose another --workdir to start again."
        )


def _check_schedule(workdir: pathlib.Path, step: int, before: TrainConfig, now: TrainConfig) -> None:
    """Raises UserError if only the number of steps changed and this would make the learning rate jump."""
    if now.steps == before.steps or now.optimizer != before.optimizer:
        return
    rates = [
        np.asarray(learning_rate_schedule(now.optimizer, steps)(step)).item() for steps in (before.steps, now.steps)
    ]
    if abs(rates[1] - rates[0]) > 0.01 * now.optimizer.learning_rate:
        raise UserError(
            f"config.steps: found {now.steps}, but {workdir} is at step {step} of {before.steps}, and its "
            f"{now.optimizer.schedule!r} learning rate would jump from {rates[0]:.2g} to {rates[1]:.2g}; expected "
            f"{before.steps}. To continue anyway, set the rate by --config.optimizer.schedule=constant and "
            "--config.optimizer.learning_rate=RATE; or train again with more steps in another --workdir."
        )


def _tell_changes(workdir: pathlib.Path, step: int, before: TrainConfig, now: TrainConfig) -> None:
    """Reports the settings that changed at ``step``, and saves the previous config."""
    old, new = (_flat(config_dict(config).to_dict()) for config in (before, now))
    changed = {key: value for key, value in new.items() if value != old.get(key) and key.split(".")[0] not in _FREE}
    if not new["data.base_sha256"]:
        changed.pop("data.base_sha256", None)  # the run's source no longer exists, and is no longer needed
    if changed:
        kept = workdir / f"config_until_{step}.json"
        files.write_text(kept, to_json(before))
        print(f"continuing from step {step} with changed settings; {kept} keeps the old ones:", file=sys.stderr)
        for key, value in changed.items():
            print(f"  config.{key}: {old.get(key)!r} -> {value!r}", file=sys.stderr, flush=True)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _check(written: dict[str, float] | None, config: TrainConfig) -> None:
    if written and written["skipped_in_a_row"] >= config.abort_after:
        raise NonFiniteError(
            f"{written['skipped_in_a_row']} steps in a row had a loss or gradient that is not finite (the limit is "
            f"config.abort_after = {config.abort_after}). metrics.jsonl lists the steps and their records; lower "
            "config.optimizer.learning_rate or inspect those records. The checkpoints hold the last finite state."
        )


def _sigterm_flag() -> threading.Event:
    """Returns an event that SIGTERM sets, if called in the main thread; otherwise the event is never set."""
    event = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        event.set()

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handle)
    return event
