"""Measures a training step on eight devices: ``python -m benchmarks.scale --output docs/scale.md``.

Compiles the training steps for eight simulated CPU devices, so that any machine can do it: nothing is run and no weights are
needed. Then lowers every step and sampling for eight TPU chips with their fused attention.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
from absl import flags

from benchmarks import noise
from realiz3d_jax import errors, files, sharding, startup
from realiz3d_jax.checkpoints import bases
from realiz3d_jax.config.schema import OptimizerConfig, TrainConfig
from realiz3d_jax.method import plans
from realiz3d_jax.method.domains import Domain
from realiz3d_jax.models import attention, parallel
from realiz3d_jax.sampling import generator
from realiz3d_jax.sharding import DeviceConfig
from realiz3d_jax.training import compiled
from realiz3d_jax.training.setup import Run, make_run
from realiz3d_jax.views import VIEWS

_BASE = flags.DEFINE_string("base", "pixart_sigma", "A base model of checkpoints/bases.py.")
_DEPTH = flags.DEFINE_integer("depth", None, "Blocks; all by default.")
_OUTPUT = flags.DEFINE_string("output", None, "The page to write; by default it is printed.")

_GIB = 2**30
_DEVICES = 8
_MESHES = {"data=8": (8, 1), "fsdp=8": (1, 8), "data=2, fsdp=4": (2, 4)}

_PAGE = """# Several devices: memory and communication of a step

Made by `python -m benchmarks.scale --output docs/scale.md` (jax {jax}). All figures are read from compiled programs
(`training/compiled.py`); nothing was run. `{base}` with {depth} blocks, {grids} grids of four views in all, {devices} devices.

`data` replicates parameters, `fsdp` splits them, with their moments and averages, and gathers those of each block when needed.
The batch is split over both, and constrained to stay split at the entry of every block (`models/parallel.py`). Otherwise the
partitioner would follow the parameters, which `fsdp` splits along contracted axes, and every device would compute all grids, as
the rows "not constrained" show.

## Memory and collectives

For one device and one step, in GiB: *state* is persistent memory (parameters, moments, averages, its batch), *temporaries* the
additional memory during the step, *exchanged* the total size of all collectives' results. The programs are compiled for CPUs,
whose compiler neither overlaps nor fuses as a GPU's or TPU's does: compare the rows with each other, not with a data sheet.

{memory}

A parameter whose axis `fsdp` does not divide stays whole on every device; training lists them at its start, with their cost.

## A float32 residual stream

Products are bfloat16 either way; the tokens between blocks are float32 by default. In bfloat16 they take less
memory, but lose part of the domains' shifts: [`pretrained.md`](pretrained.md) has the figures.

{residual}

## TPUs

The fused attention is a kernel that the partitioner cannot split: each device runs it on its own sequences, under `shard_map`.
The table shows every step, and sampling, lowered for eight TPU chips, data=2, fsdp=4:

{tpu}
"""


def main(argv: list[str]) -> None:
    """The benchmark."""
    del argv
    startup.start()
    base = bases.find(_BASE.value)
    rows = [
        _row(stage, kind, name)
        for stage, kind in (("stage2", "synthetic"), ("stage2", "real"), ("stage1", "synthetic"))
        for name in _MESHES
    ]
    with mock.patch.object(parallel, "split_batch", lambda tree, axis=0: tree):
        rows += [_row("stage2", "synthetic", name, "not constrained") for name in list(_MESHES)[1:]]
    head = ["stage", "iteration", "mesh", "", "state", "temporaries", "exchanged", "largest, MiB"]
    residual = [_row("stage2", "synthetic", "data=8", residual, residual_dtype=residual) for residual in _DTYPES]
    page = _PAGE.format(
        jax=jax.__version__,
        base=_BASE.value,
        depth=_DEPTH.value or base.model.depth,
        grids=_DEVICES,
        devices=_DEVICES,
        memory=_table(head, rows),
        residual=_table(["stage", "iteration", "mesh", "residual stream", *head[4:]], residual),
        tpu=_table(
            ["stage", "of", "tokens of a sequence", "kernels, all under shard_map", "lowers"], list(_tpu_rows())
        ),
    )
    if _OUTPUT.value:
        files.write_text(pathlib.Path(_OUTPUT.value), page)
    else:
        print(page)


_DTYPES = ("float32", "bfloat16")


def _make_run(stage: str, data: int, fsdp: int, **changes: Any) -> Run:
    base = bases.find(_BASE.value)
    depth = _DEPTH.value or base.model.depth
    settings = base.on_grids(batch_grids=_DEVICES)
    settings["model"] = dataclasses.replace(settings["model"], depth=depth, **changes)
    config = TrainConfig(
        **settings,
        stage=stage,
        workdir="",
        steps=1_000,
        method={"name": "realiz3d"},
        optimizer=OptimizerConfig(learning_rate=5e-5, weight_decay=0.0),
        devices=DeviceConfig(data, fsdp),
    )
    return make_run(config, empty_caption=noise.caption(config))


def _row(stage: str, kind: str, mesh: str, note: str = "", **changes: Any) -> list[str]:
    run = _make_run(stage, *_MESHES[mesh], **changes)
    iteration = next(found for found in run.stage.iterations if found.name == kind)
    program = run.steps[kind].lower(run.abstract_state, noise.batch(run.config, iteration)).compile()
    report = compiled.report(program)
    sizes = (f"{size / _GIB:.2f}" for size in (report.arguments, report.temporaries, report.exchanged))
    row = [stage, kind, mesh, note, *sizes, f"{report.largest / 2**20:.0f}"]
    print(" | ".join(row), flush=True)
    return row


def _tpu_rows() -> Iterator[list[str]]:
    with attention.compiling_for("tpu"):
        for stage in ("stage1", "stage2"):
            run = _make_run(stage, 2, 4, attention="splash")
            side = run.config.model.sample_size // run.config.model.patch_size
            for iteration in run.stage.iterations:
                batch = noise.batch(run.config, iteration)
                tokens = side**2 * (VIEWS if iteration.joint else 1)
                yield _lowered(
                    stage, f"{iteration.name} step", tokens, run.steps[iteration.name], run.abstract_state, batch
                )
        yield _lowered("", "sampling, 4 steps", side**2 * VIEWS, generator._sample, *_sampling(run))


def _sampling(run: Run) -> tuple[Any, ...]:
    """The arguments of the jitted sampler for eight grids that the devices share."""
    where = sharding.batch_sharding(run.device_mesh)
    batch = {**noise.batch(run.config, run.stage.iterations[0]), "seeds": np.arange(_DEVICES, dtype=np.uint32)}
    batch = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=where), batch)
    sampler = run.config.sampling.make_sampler()
    timesteps = sampler.timesteps(run.model.process, 4, run.config.sampling.spacing)
    return (
        *(run.model, sampler, tuple(timesteps.tolist()), VIEWS, run.device_mesh.abstract_mesh),
        run.abstract_state.params,
        jax.eval_shape(lambda: run.model.codec.init(jax.random.key(0))),
        *(batch["seeds"], batch["captions"], batch["control"]),
        run.step_config.empty_caption,
        plans.inference_plan(timesteps, run.model.config.depth, Domain.REAL),
        np.float32(run.config.sampling.guidance_scale),
    )


def _lowered(stage: str, name: str, tokens: int, program: Any, *arguments: Any) -> list[str]:
    traced = program.trace(*arguments)
    kernels = compiled.kernels(traced.jaxpr)
    assert all("shard_map" in within for within in kernels)
    text = traced.lower(lowering_platforms=("tpu",)).as_text()
    return [stage, name, f"{tokens:,}", str(len(kernels)), "yes" if "tpu_custom_call" in text else "no"]


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    errors.run(main)
