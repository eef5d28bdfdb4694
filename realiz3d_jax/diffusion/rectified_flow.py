"""Rectified flow: data and noise on straight lines (Liu et al. 2022; Esser et al. 2024, "Scaling Rectified Flow Transformers").

    (1)  x_σ = (1 - σ) x_0 + σ ε,        timestep = T σ
    (2)  v = dx/dσ = ε - x_0,            the model's prediction; x_0 = x - σ v,  ε = x + (1 - σ) v
    (3)  σ <- s σ / (1 + (s - 1) σ)      the shift s spends more of training and of sampling on noisy images

Training draws σ from a logit-normal distribution, σ = sigmoid(n) with n ~ N(m, d²), and shifts it by (3). DDIM without fresh
noise is Euler's method here: (1 - σ') x_0 + σ' ε = x + (σ' - σ) v.

The model may predict the data instead (Li and He 2025, "Back to Basics: Let Denoising Generative Models Denoise"). Since
v = (x - x_0) / σ, an error in x_0 is one of 1/σ in v, and its loss is that of the velocity up to a cap, 1/σ_min² in the paper:

    (4)  ε = (x - (1 - σ) x_0) / σ
    (5)  weight = min(1 / σ², cap)
"""

import dataclasses
from typing import ClassVar, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from realiz3d_jax.diffusion.process import check_prediction
from realiz3d_jax.errors import UserError

Level = TypeVar("Level", float, np.ndarray, jax.Array)


@dataclasses.dataclass(frozen=True)
class RectifiedFlow:
    """The straight process in continuous time; the defaults are Stable Diffusion 3's.

    Attributes:
      num_timesteps: T, the timestep of pure noise.
      shift: s of eq. (3).
      logit_mean: m, the mean of the normal distribution from which training draws.
      logit_scale: d, its standard deviation.
      prediction: "velocity" (eq. 2) or "x", the data.
    """

    num_timesteps: int = 1000
    shift: float = 3.0
    logit_mean: float = 0.0
    logit_scale: float = 1.0
    prediction: str = "velocity"
    name: str = "rectified_flow"

    PREDICTIONS: ClassVar[tuple[str, ...]] = ("velocity", "x")

    def __post_init__(self) -> None:
        check_prediction(self.prediction, self.PREDICTIONS)
        for name in ("shift", "logit_scale"):
            if not getattr(self, name) > 0.0:
                raise UserError(f"config.diffusion.{name}: found {getattr(self, name)!r}, expected more than 0.")

    def draw_timesteps(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Random timesteps float32[shape] in (0, T)."""
        logits = self.logit_mean + self.logit_scale * jax.random.normal(key, shape)
        return self._shifted(jax.nn.sigmoid(logits)) * self.num_timesteps

    def add_noise(self, x0: jax.Array, noise: jax.Array, timestep: jax.Array) -> jax.Array:
        """Eq. (1): ``x0`` and ``noise`` are float[B, ...]; ``timestep`` float32[B, ...] in [0, T]."""
        sigma = jnp.asarray(timestep, jnp.float32) / self.num_timesteps
        sigma = sigma.reshape(sigma.shape + (1,) * (x0.ndim - sigma.ndim))
        return (1.0 - sigma) * x0 + sigma * noise

    def target(self, x0: jax.Array, noise: jax.Array, timestep: jax.Array) -> jax.Array:
        """Eq. (2): the velocity v; or the data."""
        del timestep
        return x0 if self.prediction == "x" else noise - x0

    def weight(self, timestep: jax.Array, cap: float) -> jax.Array:
        """1 for the velocity, whose error causes at most the same error in x_0, however noisy x is; eq. (5) for the data."""
        if self.prediction == "x":
            return jnp.minimum(jnp.square(self.num_timesteps / jnp.asarray(timestep, jnp.float32)), cap)
        return jnp.ones_like(timestep)

    def split(
        self, x: jax.Array, prediction: jax.Array, signal: jax.Array, sigma: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Eq. (2) and (4): the data and the noise that the prediction implies."""
        if self.prediction == "x":
            return prediction, (x - signal * prediction) / sigma
        return x - sigma * prediction, x + signal * prediction

    def sampling_timesteps(self, steps: int, spacing: str = "linspace") -> np.ndarray:
        """The timesteps at which a sampler evaluates the model: float64[steps], descending from T, shifted by eq. (3).

        "linspace" ends where diffusers' ``FlowMatchEulerDiscreteScheduler`` does, at the shifted 1/T, shifted once more;
        "trailing" takes ``steps`` equal steps to clean data; "leading" starts one step late.

        Raises:
          ValueError: ``steps`` is not in [1, T], or the spacing is unknown.
        """
        if not 1 <= steps <= self.num_timesteps:
            raise ValueError(f"steps: found {steps}, expected 1 to {self.num_timesteps}")
        if spacing == "linspace":
            sigmas = np.linspace(1.0, self._shifted(1.0 / self.num_timesteps), steps)
        elif spacing == "trailing":
            sigmas = 1.0 - np.arange(steps) / steps
        elif spacing == "leading":
            sigmas = 1.0 - np.arange(1, steps + 1) / (steps + 1)
        else:
            raise ValueError(f"spacing: found {spacing!r}, expected 'leading', 'trailing' or 'linspace'")
        return self._shifted(sigmas) * self.num_timesteps

    def levels(self, timesteps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """1 - σ and σ, float64."""
        sigma = np.asarray(timesteps, np.float64) / self.num_timesteps
        return 1.0 - sigma, sigma

    def _shifted(self, sigma: Level) -> Level:
        """Eq. (3)."""
        return self.shift * sigma / (1.0 + (self.shift - 1.0) * sigma)


Process = RectifiedFlow
