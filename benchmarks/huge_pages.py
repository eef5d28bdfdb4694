"""What huge pages do to training and sampling on CPUs, with and without, in turn: ``python -m benchmarks.huge_pages``.

XLA maps and unmaps its scratch memory in every step. With ``GLIBC_TUNABLES=glibc.malloc.hugetlb=1`` glibc asks the kernel for
huge pages there, where ``/sys/kernel/mm/transparent_hugepage/enabled`` is ``madvise`` or ``always``: fewer page faults. It must
be set before Python starts, so each round is a process of its own. Prints median milliseconds and their spread, and the ratio
to the process without, taken round by round so that a machine whose speed drifts does not favour anybody.
"""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
import rich.console
import rich.table
from absl import flags

from benchmarks import noise
from realiz3d_jax import errors, startup
from realiz3d_jax.checkpoints import bases
from realiz3d_jax.config.schema import TrainConfig
from realiz3d_jax.method.domains import Domain
from realiz3d_jax.sampling.pretrained import SHIPPED, open_model
from realiz3d_jax.training.setup import make_run

TUNABLE = "glibc.malloc.hugetlb=1"
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Processes with, and as many without.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 5, "Steps, or batches of samples, that a process times.", lower_bound=1)
_WIDTH = flags.DEFINE_integer("width", 0, "Width of the backbone, a multiple of 64; 0 is that of the embedded model.")
_MEASURE = flags.DEFINE_bool("measure", False, "Time this process alone, and print seconds as JSON.")


def main(argv: list[str]) -> None:
    """The benchmark."""
    del argv
    if _MEASURE.value:
        print(json.dumps({name: _seconds(step) for name, step in _timed()}))
        return
    taken: dict[str, dict[str, list[float]]] = {}
    for _ in range(_ROUNDS.value):
        for tunables in ("", TUNABLE):
            for name, seconds in _process(tunables).items():
                taken.setdefault(name, {}).setdefault(tunables, []).append(seconds)
    table = rich.table.Table(title=f"huge pages, {_ROUNDS.value} rounds, width {_WIDTH.value or 'as embedded'}")
    for column in ("", "without, ms", "with, ms", "with / without"):
        table.add_column(column, justify="right" if column else "left")
    for name, by in taken.items():
        without, huge = (1e3 * np.array(by[tunables]) for tunables in ("", TUNABLE))
        cells = [f"{np.median(ms):.0f} ({ms.min():.0f} to {ms.max():.0f})" for ms in (without, huge)]
        ratios = huge / without
        table.add_row(name, *cells, f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})")
    rich.console.Console().print(table)


def _process(tunables: str) -> dict[str, float]:
    """Median seconds of each thing that a process of its own times."""
    command = [sys.executable, "-m", "benchmarks.huge_pages", "--measure"]
    command += [f"--repeats={_REPEATS.value}", f"--width={_WIDTH.value}"]
    environment = {**os.environ, "GLIBC_TUNABLES": tunables}
    found = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(found.splitlines()[-1])


def _timed() -> Iterator[tuple[str, Callable[[], object]]]:
    """Steps of Stage 2 on one CPU device, as in training, and a batch of samples."""
    startup.start()
    base = bases.find("shapes")
    model = base.model
    if _WIDTH.value:
        model = dataclasses.replace(model, width=_WIDTH.value, heads=_WIDTH.value // 64)
    config = TrainConfig(
        **{**base.settings(batch_grids=8), "model": model},
        stage="stage2",
        workdir="",
        steps=100,
        method={"name": "realiz3d"},
    )
    run = make_run(config, empty_caption=noise.caption(config))
    for iteration in run.stage.iterations:
        held = [run.initial_state()]
        batch = run.put(noise.batch(config, iteration))

        def step(name: str = iteration.name, held: list = held, batch: dict = batch) -> object:
            held[0], metrics = run.steps[name](held[0], batch)
            return metrics

        yield f"{iteration.name} step", step
    if not _WIDTH.value:
        shipped = open_model(SHIPPED["base"])
        sampling = dataclasses.replace(shipped.config.sampling, sampler="dpm++", steps=10)
        generate = shipped.generator(sampling)
        captions = [["a red cone"] * 4] * 8
        yield "sampling, 32 images", lambda: generate(shipped.params, captions, range(8), Domain.REAL)


def _seconds(step: Callable[[], object]) -> float:
    jax.block_until_ready(step())  # compiled and warm
    seconds = []
    for _ in range(_REPEATS.value):
        start = time.perf_counter()
        jax.block_until_ready(step())
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


if __name__ == "__main__":
    errors.run(main)
