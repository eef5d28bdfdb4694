"""The training loop.

DO NOT CHANGE THE ORDER OF THE LOOP'S BODY: sample -> save -> next(data) -> step -> record. A checkpoint of step n then holds
the state after n steps and the position of the data before batch n, and a resumed run sees what an undisturbed one would.
"""

import pathlib
import signal
import sys
import threading
from types import FrameType

import jax
import numpy as np

from realiz3d_jax import files, progress
from realiz3d_jax.data.pipeline import VIEWS
from realiz3d_jax.errors import UserError
from realiz3d_jax.training import monitoring
from realiz3d_jax.training.checkpoint import Checkpoints
from realiz3d_jax.training.config import TrainConfig, to_json
from realiz3d_jax.training.previews import Previews
from realiz3d_jax.training.setup import Run, make_run
from realiz3d_jax.training.state import TrainState

PREEMPTED = 128 + signal.SIGTERM
"""The exit status of a run that was asked to stop and has saved: not 0, so that a launcher starts it again."""


class NonFiniteError(RuntimeError):
    """Too many steps in a row had a loss or a gradient that is not finite."""


def train(config: TrainConfig, workdir: pathlib.Path) -> TrainState:
    """Trains one stage to its end, from its beginning or from the newest checkpoint in ``workdir``.

    Returns:
      the final state, which has been saved.

    Raises:
      UserError: config, data, starting point or workdir are at fault.
      NonFiniteError: ``config.abort_after`` steps in a row were not finite.
      SystemExit: with status ``PREEMPTED`` after SIGTERM, when a checkpoint has been saved.
    """
    run = make_run(config)
    workdir = files.writable_directory(workdir)
    streams = run.open_streams()
    with Checkpoints(workdir, config) as checkpoints:
        if checkpoints.latest() is None:
            state = run.initial_state()
        else:
            state, positions = checkpoints.restore(run.abstract_state)
            for name, stream in streams.items():
                stream.set_state(positions[name])
        first = int(state.step)
        print(monitoring.describe_params(state.params, run.stage), flush=True)
        print(
            f"{config.stage} on {run.mesh.size} {jax.devices()[0].device_kind} "
            f"(data {run.mesh.shape['data']}, fsdp {run.mesh.shape['fsdp']}), attention: {config.model.attention}, "
            f"steps {first} to {config.steps}, workdir {workdir}",
            flush=True,
        )
        files.write_text(workdir / "config.json", to_json(config))
        devices = list(run.mesh.devices.flat)
        with (
            monitoring.Monitor(workdir, config, run.stage, devices, VIEWS, first) as monitor,
            progress.bar(config.stage, config.steps, done=first) as advance,
        ):
            return _loop(run, state, streams, checkpoints, monitor, advance)


def _loop(run: Run, state: TrainState, streams, checkpoints: Checkpoints, monitor, advance) -> TrainState:
    config, preempted, previews = run.config, _sigterm_flag(), Previews(run)
    for step in range(int(state.step), config.steps + 1):
        # 1. Look at the state as it is.
        if config.log.samples_every and step % config.log.samples_every == 0:
            monitor.image("samples", previews(state.sampling_params()), step)
        # 2. Save it, with the data's position before the next batch.
        asked = preempted.is_set()  # once: what comes after this is for the next step to notice
        force = asked or step == config.steps
        if force or checkpoints.due(step):
            # What a resumed run will not go through again has to be written before it is saved.
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
        # 5. Record; what is written is one interval old, so that nothing waits for the device.
        monitor.record(step + 1, iteration, metrics, np.asarray(records))
        note = ""
        if (step + 1) % config.log.metrics_every == 0 and (written := monitor.flush()):
            _check(written, config)
            note = monitoring.summary(written)
        advance(note=note)
    raise UserError(
        f"config.steps: found {config.steps}, but the checkpoint in the workdir is at step {int(state.step)} already; "
        "expected at least as many. Choose another --workdir to start anew."
    )


def _check(written: dict[str, float] | None, config: TrainConfig) -> None:
    if written and written["skipped_in_a_row"] >= config.abort_after:
        raise NonFiniteError(
            f"{written['skipped_in_a_row']} steps in a row had a loss or gradient that is not finite (the limit is "
            f"config.abort_after = {config.abort_after}). metrics.jsonl names the steps and their records; lower "
            "config.optimizer.learning_rate or look at those records. The checkpoints hold the last finite state."
        )


def _sigterm_flag() -> threading.Event:
    """An event that SIGTERM sets (in the main thread of a process; elsewhere it is never set)."""
    event = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        event.set()

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handle)
    return event
