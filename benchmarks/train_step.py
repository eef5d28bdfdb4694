"""How long one training iteration takes, variants side by side in one run: ``python -m benchmarks.train_step``.

Prints, for each kind of iteration and each variant of the backbone's execution, the median seconds of a step, its spread, and
the ratio to the first variant, taken round by round so that a machine whose speed drifts does not favour anybody.

    scan      the blocks are scanned
    unrolled  the same scan, unrolled altogether
    cond      frozen blocks' backward pass is skipped at run time (``skip_frozen_backward``), as layer-aware training draws them
    masked    it is computed, and the update is masked
"""

import dataclasses
import time

import jax
import numpy as np
import rich.console
import rich.table
from absl import flags

from benchmarks import noise
from realiz3d_jax import errors, startup
from realiz3d_jax.checkpoints import bases
from realiz3d_jax.config.schema import TrainConfig
from realiz3d_jax.training.setup import Run, make_run

_SIZE = flags.DEFINE_string("size", "shapes", "A base model of checkpoints/bases.py.")
_GRIDS = flags.DEFINE_integer("grids", 8, "Grids of four views in a batch.")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Steps of each variant that are timed, in turn.")
_TAU = flags.DEFINE_float(
    "tau", 0.4, "Real iterations freeze up to this fraction of the blocks, the same for each variant."
)

VARIANTS = {
    "scan, masked": {"scan_unroll": 1, "skip_frozen_backward": False},
    "scan, cond": {"scan_unroll": 1, "skip_frozen_backward": True},
    "unrolled, masked": {"scan_unroll": 0, "skip_frozen_backward": False},
    "unrolled, cond": {"scan_unroll": 0, "skip_frozen_backward": True},
}


def main(argv: list[str]) -> None:
    """The benchmark."""
    del argv
    startup.start()
    table = rich.table.Table(title=f"{_SIZE.value}, {_GRIDS.value} grids, {jax.devices()[0].device_kind}")
    for column in ("iteration", "variant", "median s", "min to max s", "of the first variant"):
        table.add_column(column, justify="left" if column in ("iteration", "variant") else "right")
    for kind in ("synthetic", "real"):
        timed = _time_variants(kind)
        first = timed[next(iter(timed))]
        for name, seconds in timed.items():
            ratio = np.median(np.array(seconds) / np.array(first))
            spread = f"{min(seconds):.3f} to {max(seconds):.3f}"
            table.add_row(kind, name, f"{np.median(seconds):.3f}", spread, f"{ratio:.2f}")
    rich.console.Console().print(table)


def _time_variants(kind: str) -> dict[str, list[float]]:
    """Seconds of ``--rounds`` steps of each variant, the variants in turn."""
    ready = {name: _ready(kind, options) for name, options in VARIANTS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(_ROUNDS.value):
        for name, (run, state, batch) in ready.items():
            start = time.perf_counter()
            state, metrics = run.steps[kind](state, batch)
            jax.block_until_ready((state, metrics))
            seconds[name].append(time.perf_counter() - start)
            ready[name] = (run, state, batch)
    return seconds


def _ready(kind: str, options: dict[str, int | bool]) -> tuple[Run, object, dict[str, jax.Array]]:
    """A run of Stage 2, compiled and warm, with its state and a batch of noise."""
    base = bases.find(_SIZE.value)
    model = dataclasses.replace(base.model, **{**options, "scan_unroll": options["scan_unroll"] or base.model.depth})
    config = TrainConfig(
        **{**base.settings(batch_grids=_GRIDS.value), "model": model},
        stage="stage2",
        workdir="",
        steps=100,
        method={"name": "realiz3d", "tau": _TAU.value},
    )
    run = make_run(config, empty_caption=noise.caption(config))
    state = run.initial_state()
    iteration = next(iteration for iteration in run.stage.iterations if iteration.name == kind)
    batch = run.put(noise.batch(config, iteration))
    state, metrics = run.steps[kind](state, batch)
    jax.block_until_ready(metrics)
    return run, state, batch


if __name__ == "__main__":
    errors.run(main)
