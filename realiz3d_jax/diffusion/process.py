"""What a diffusion process is, and finding one by its name.

A process is one module of this folder with a frozen dataclass ``Process`` whose field ``name`` is the module's name. It
mixes data x_0 and noise ε to x = signal · x_0 + sigma · ε and says what the model predicts of them; that is all that
step and samplers know.
"""

import importlib
import pkgutil
from typing import Protocol

import jax
import numpy as np

from realiz3d_jax.errors import UserError


class Process(Protocol):
    """The forward process of training, and how its predictions are read."""

    name: str
    num_timesteps: int

    def draw_timesteps(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Random timesteps of that shape for training, in [0, ``num_timesteps``]."""

    def add_noise(self, x0: jax.Array, noise: jax.Array, timestep: jax.Array) -> jax.Array:
        """x; the axes of ``timestep`` are the leading ones of ``x0`` (a length of 1 broadcasts)."""

    def target(self, x0: jax.Array, noise: jax.Array) -> jax.Array:
        """What the model shall predict."""

    def weight(self, timestep: jax.Array, cap: float) -> jax.Array:
        """Of the loss at ``timestep``, from 1 to ``cap``."""

    def split(
        self, x: jax.Array, prediction: jax.Array, signal: jax.Array, sigma: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """(x_0, ε) as a prediction at these levels has them."""

    def sampling_timesteps(self, steps: int, spacing: str) -> np.ndarray:
        """[steps], descending: where a sampler evaluates the model."""

    def levels(self, timesteps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(signal, sigma) at ``timesteps``, float64."""


def process_class(name: str) -> type:
    """The ``Process`` called ``name``.

    Raises:
      UserError: there is none.
    """
    package = importlib.import_module("realiz3d_jax.diffusion")
    names = [found.name for found in pkgutil.iter_modules(package.__path__)]
    classes = [getattr(importlib.import_module(f"{package.__name__}.{found}"), "Process", None) for found in names]
    known = {found.name: found for found in classes if hasattr(found, "name")}
    if name not in known:
        raise UserError(f"config.diffusion.name: found {name!r}, expected one of {', '.join(known)}.")
    return known[name]
