"""The contract of a diffusion process, and the lookup of one by its name.

A process is one module of this folder with a frozen dataclass ``Process`` whose field ``name`` is the module's name. It
mixes data x_0 and noise ε into x = signal · x_0 + sigma · ε and defines what the model predicts; step and samplers know
nothing else of it. Its field ``prediction`` chooses among the class's ``PREDICTIONS``; each is a linear combination of x_0 and
ε whose coefficients the timestep gives, so that x and the prediction determine both.
"""

import dataclasses
import importlib
import pkgutil
from typing import Any, ClassVar, Protocol

import jax
import numpy as np

from realiz3d_jax.errors import UserError


class Process(Protocol):
    """The forward process of training, and how its predictions are read."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    @property
    def name(self) -> str: ...
    @property
    def num_timesteps(self) -> int: ...
    @property
    def prediction(self) -> str: ...

    def draw_timesteps(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Random timesteps of ``shape`` for training, in [0, ``num_timesteps``]."""
        ...

    def add_noise(self, x0: jax.Array, noise: jax.Array, timestep: jax.Array) -> jax.Array:
        """The noisy x; the axes of ``timestep`` are the leading ones of ``x0`` (a length of 1 broadcasts)."""
        ...

    def target(self, x0: jax.Array, noise: jax.Array, timestep: jax.Array) -> jax.Array:
        """The prediction that the model is trained to make; arguments as for ``add_noise``."""
        ...

    def weight(self, timestep: jax.Array, cap: float) -> jax.Array:
        """The weight of the loss at ``timestep``, from 1 to ``cap``."""
        ...

    def split(
        self, x: jax.Array, prediction: jax.Array, signal: jax.Array, sigma: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """The data x_0 and the noise ε that a prediction at these levels implies."""
        ...

    def sampling_timesteps(self, steps: int, spacing: str) -> np.ndarray:
        """The timesteps at which a sampler evaluates the model: [steps], descending."""
        ...

    def levels(self, timesteps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The levels (signal, sigma) at ``timesteps``, float64."""
        ...


def check_prediction(found: str, known: tuple[str, ...]) -> None:
    """Raises UserError unless ``found`` is one of the predictions ``known``."""
    if found not in known:
        raise UserError(f"config.diffusion.prediction: found {found!r}, expected one of {', '.join(map(repr, known))}.")


def process_class(name: str) -> type[Process]:
    """The ``Process`` called ``name``.

    Raises:
      UserError: no process has this name.
    """
    package = importlib.import_module("realiz3d_jax.diffusion")
    names = [found.name for found in pkgutil.iter_modules(package.__path__)]
    modules = [importlib.import_module(f"{package.__name__}.{found}") for found in names]
    classes = [module.Process for module in modules if dataclasses.is_dataclass(getattr(module, "Process", None))]
    known: dict[str, type[Process]] = {found.name: found for found in classes}
    if name not in known:
        raise UserError(f"config.diffusion.name: found {name!r}, expected one of {', '.join(known)}.")
    return known[name]
