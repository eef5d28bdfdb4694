"""Whether a model trains here, and with what: ``python -m benchmarks.whole_step --base pixart_sigma --stage stage1``.

Takes steps of one stage at full size, on random weights and random encoded data, one grid of four views for each device unless
--grids says more. Prints seconds of compilation and of each step, the loss, and the largest memory that the process had.
"""

import dataclasses
import resource
import time

import jax
from absl import flags

from benchmarks import noise
from realiz3d_jax import errors, startup
from realiz3d_jax.checkpoints import bases
from realiz3d_jax.config.schema import OptimizerConfig, TrainConfig
from realiz3d_jax.sharding import DeviceConfig
from realiz3d_jax.training.setup import make_run

_BASE = flags.DEFINE_string("base", "pixart_sigma", "A base model of checkpoints/bases.py.")
_STAGE = flags.DEFINE_enum("stage", "stage1", ["stage1", "stage2"], "The stage of Realiz3D.")
_STEPS = flags.DEFINE_integer("steps", 1, "Steps of each kind of iteration.")
_GRIDS = flags.DEFINE_integer("grids", None, "Grids in a batch; one a device by default.")
_DEPTH = flags.DEFINE_integer("depth", None, "Blocks; all by default.")
_DTYPE = flags.DEFINE_enum("dtype", None, ["float32", "bfloat16"], "Of the products; the base's own by default.")
_ATTENTION = flags.DEFINE_string("attention", None, "The attention's back end; the base's own by default.")
_FSDP = flags.DEFINE_integer("fsdp", 1, "Devices that parameters are split over.")


def main(argv: list[str]) -> None:
    """The benchmark."""
    del argv
    startup.start()
    base = bases.find(_BASE.value)
    given = {"depth": _DEPTH.value, "dtype": _DTYPE.value, "attention": _ATTENTION.value}
    model = dataclasses.replace(base.model, **{name: value for name, value in given.items() if value is not None})
    config = TrainConfig(
        **{**base.settings(batch_grids=_GRIDS.value or jax.device_count()), "model": model},
        stage=_STAGE.value,
        workdir="",
        steps=100,
        method={"name": "realiz3d"},
        optimizer=OptimizerConfig(learning_rate=5e-5, weight_decay=0.0),
        devices=DeviceConfig(fsdp=_FSDP.value),
    )
    run = make_run(config, empty_caption=noise.caption(config))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(run.abstract_state.params))
    print(
        f"{_BASE.value}, {_STAGE.value}: {parameters:,} parameters on {run.device_mesh.size} {jax.devices()[0].device_kind}"
    )
    state = run.initial_state()
    for iteration in run.stage.iterations:
        batch = run.put(noise.batch(config, iteration))
        start = time.monotonic()
        compiled = run.steps[iteration.name].lower(state, batch).compile()
        memory = compiled.memory_analysis()
        print(
            f"{iteration.name}: compiled in {time.monotonic() - start:.0f} s; a device holds "
            f"{memory.argument_size_in_bytes / 2**30:.2f} GiB of state and batch and {memory.temp_size_in_bytes / 2**30:.2f} "
            "GiB while it computes",
            flush=True,
        )
        for _ in range(_STEPS.value):
            start = time.monotonic()
            state, metrics = compiled(state, batch)
            loss = float(metrics["loss"])
            print(f"{iteration.name}: {time.monotonic() - start:.2f} s, loss {loss:.4f}", flush=True)
    print(f"largest memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


if __name__ == "__main__":
    errors.run(main)
