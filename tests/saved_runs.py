"""Runs of the ``tiny`` size and random states of them, to be saved and read again."""

import jax
import numpy as np
from worlds import load_config

from realiz3d_jax.training import setup
from realiz3d_jax.training.setup import Run
from realiz3d_jax.training.state import TrainState

POSITIONS = {"synthetic_grids": {"next_index": 5}, "real_images": {"next_index": 2}}


def make_run(devices: int = 1, **changes) -> Run:
    """A run of Stage 2; in the names of ``changes``, keys of the config, "__" stands for a dot."""
    named = {key.replace("__", "."): value for key, value in changes.items()}
    split = {"devices.data": 1, "devices.fsdp": devices}
    return setup.make_run(load_config("stage2", {**split, **named}), jax.devices()[:devices])


def random_state(run: Run, seed: int = 0) -> TrainState:
    """A state of which no two leaves are alike."""
    random = np.random.default_rng(seed)

    def fill(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        values = random.integers(0, 100, leaf.shape) if leaf.dtype == np.int32 else random.normal(size=leaf.shape)
        return jax.device_put(values.astype(leaf.dtype), leaf.sharding)

    return jax.tree.map(fill, run.abstract_state)
