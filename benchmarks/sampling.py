"""How sampling scales with devices, side by side in one run: ``python -m benchmarks.sampling``.

Draws the same batch from the shipped base model on the first 1, 2, 4... devices (on a CPU: one for each core). Prints the
median images per second, their spread, and the ratio to one device, taken round by round so that a machine whose speed
drifts does not favour anybody.
"""

import dataclasses
import time

import jax
import numpy as np
import rich.console
import rich.table
from absl import flags

from realiz3d_jax import errors, sharding, startup
from realiz3d_jax.method.domains import Domain
from realiz3d_jax.sampling.pretrained import SHIPPED, open_model
from realiz3d_jax.sharding import DeviceConfig

_ITEMS = flags.DEFINE_integer("items", 16, "Captions in a batch; four images each.")
_STEPS = flags.DEFINE_integer("steps", 20, "Steps of DPM-Solver++.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Batches for each number of devices that are timed, in turn.")


def main(argv: list[str]) -> None:
    """The benchmark."""
    del argv
    startup.start(split_cpu=True)
    base = open_model(SHIPPED["base"])
    sampling = dataclasses.replace(base.config.sampling, sampler="dpm++", steps=_STEPS.value)
    generate = base.generator(sampling)
    counts = [1 << power for power in range(jax.device_count().bit_length())]
    params = {}
    for count in counts:
        device_mesh = sharding.make_device_mesh(DeviceConfig(), jax.devices()[:count])
        params[count] = jax.device_put(base.params, sharding.replicated(device_mesh))
    captions = [["a red cone"] * 4] * _ITEMS.value
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(_ROUNDS.value + 1):
        for count in counts:
            start = time.perf_counter()
            generate(params[count], captions, range(_ITEMS.value), Domain.REAL)
            seconds[count].append(time.perf_counter() - start)
    table = rich.table.Table(title=f"{4 * _ITEMS.value} images, {_STEPS.value} steps, {jax.devices()[0].device_kind}")
    for column in ("devices", "median images/s", "min to max", "of one device"):
        table.add_column(column, justify="right")
    rates = {
        count: 4 * _ITEMS.value / np.array(taken[1:]) for count, taken in seconds.items()
    }  # the first one compiles
    for count, rate in rates.items():
        ratio = np.median(rate / rates[1])
        table.add_row(str(count), f"{np.median(rate):.1f}", f"{rate.min():.1f} to {rate.max():.1f}", f"{ratio:.2f}")
    rich.console.Console().print(table)


if __name__ == "__main__":
    errors.run(main)
