"""The forward process: how noise is mixed into data (Ho et al. 2020, "Denoising Diffusion Probabilistic Models").

With the linear variances β_0 … β_{T-1} and ᾱ_t = Π_{s≤t} (1 - β_s):

    (1)  x_t = √ᾱ_t · x_0 + √(1 - ᾱ_t) · ε,         ε ~ N(0, I)
    (2)  x_0 = (x_t - √(1 - ᾱ_t) · ε) / √ᾱ_t
    (3)  weight = min(max(1, 1 / SNR), cap),        SNR = ᾱ / (1 - ᾱ)

By default the model predicts ε. With (3) an error in ε weighs as much as the error in x_0 that it causes wherever noise
prevails, up to ``cap``: a small model trained from scratch otherwise learns last what sampling decides first, colours and
layout. The other predictions are the velocity (Salimans and Ho 2022, "Progressive Distillation for Fast Sampling of Diffusion
Models", appendix D) and the data x_0 itself:

    (4)  v = √ᾱ_t · ε - √(1 - ᾱ_t) · x_0,           x_0 = √ᾱ_t · x_t - √(1 - ᾱ_t) · v,  ε = √(1 - ᾱ_t) · x_t + √ᾱ_t · v
    (5)  ε = (x_t - √ᾱ_t · x_0) / √(1 - ᾱ_t)

An error in x_0 is one of √SNR in ε and of √(SNR + 1) in v, so (3) without its cap is the paper's truncated weighting
max(SNR, 1) of the error in x_0. The weights of the others keep to it:

    (6)  v: weight = 1, which is SNR + 1, at most twice max(SNR, 1);        x: weight = min(max(1, SNR), cap)

The table ᾱ is computed in float64: in float32 a product of 1000 factors loses the last digits, which matter.
"""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from realiz3d_jax.diffusion.process import check_prediction


@dataclasses.dataclass(frozen=True)
class DDPM:
    """A variance-preserving process in discrete time; the defaults are PixArt's.

    Attributes:
      num_timesteps: T, the number of variances.
      beta_start: the first variance; the others are equally spaced.
      beta_end: the last variance.
      prediction: "epsilon", "v" (eq. 4) or "x", the data.
    """

    num_timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    prediction: str = "epsilon"
    name: str = "ddpm"

    PREDICTIONS: ClassVar[tuple[str, ...]] = ("epsilon", "v", "x")

    def __post_init__(self) -> None:
        check_prediction(self.prediction, self.PREDICTIONS)

    @functools.cached_property
    def exact_alphas_cumprod(self) -> np.ndarray:
        """ᾱ: float64[T], on the host."""
        return np.cumprod(1.0 - np.linspace(self.beta_start, self.beta_end, self.num_timesteps, dtype=np.float64))

    @property
    def alphas_cumprod(self) -> jax.Array:
        """ᾱ: float32[T]."""
        return jnp.asarray(self.exact_alphas_cumprod, jnp.float32)

    def draw_timesteps(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """int32[shape], uniform in [0, T)."""
        return jax.random.randint(key, shape, 0, self.num_timesteps)

    def target(self, x0: jax.Array, noise: jax.Array, timestep: jax.Array) -> jax.Array:
        """The prediction's target: ε, x_0 or, by eq. (4), v; arguments as for ``add_noise``."""
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "x":
            return x0
        signal, sigma = self._coefficients(timestep, x0)
        return signal * noise - sigma * x0

    def weight(self, timestep: jax.Array, cap: float) -> jax.Array:
        """Eq. (3) and (6): the weight of the loss at ``timestep``; ``cap`` = 1 is the plain objective."""
        if self.prediction == "v":
            return jnp.ones(jnp.shape(timestep))
        alphas_cumprod = self.alphas_cumprod[timestep]
        if self.prediction == "x":
            return jnp.clip(alphas_cumprod / (1.0 - alphas_cumprod), 1.0, cap)
        return jnp.clip((1.0 - alphas_cumprod) / alphas_cumprod, 1.0, cap)

    def add_noise(self, x0: jax.Array, noise: jax.Array, timestep: jax.Array) -> jax.Array:
        """Eq. (1): ``x0`` and ``noise`` are float[B, ...]; ``timestep`` int32[B, ...] in [0, T).

        The axes of ``timestep`` are the leading ones of ``x0`` (a length of 1 broadcasts); the others share a timestep.
        """
        signal, sigma = self._coefficients(timestep, x0)
        return signal * x0 + sigma * noise

    def split(
        self, x: jax.Array, prediction: jax.Array, signal: jax.Array, sigma: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Eq. (2), (4), (5): the data and the noise that the prediction implies for ``x`` = signal · data + sigma · noise."""
        if self.prediction == "v":
            return signal * x - sigma * prediction, sigma * x + signal * prediction
        if self.prediction == "x":
            return prediction, (x - signal * prediction) / sigma
        return (x - sigma * prediction) / signal, prediction

    def levels(self, timesteps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """√ᾱ and √(1 - ᾱ) at ``timesteps``, float64."""
        alphas_cumprod = self.exact_alphas_cumprod[np.asarray(timesteps)]
        return np.sqrt(alphas_cumprod), np.sqrt(1.0 - alphas_cumprod)

    def sampling_timesteps(self, steps: int, spacing: str = "leading") -> np.ndarray:
        """The timesteps at which a sampler evaluates the model: int32[steps], strictly descending.

        ``spacing`` is Table 2 of Lin et al. 2023, "Common Diffusion Noise Schedules and Sample Steps Are Flawed",
        rounded as in diffusers' ``DDIMScheduler`` with ``steps_offset=0``: "leading" ends at 0, "trailing" starts at
        T - 1, "linspace" does both.

        Raises:
          ValueError: ``steps`` is not in [1, T], or the spacing is unknown.
        """
        total = self.num_timesteps
        if not 1 <= steps <= total:
            raise ValueError(f"steps: found {steps}, expected 1 to {total}")
        if spacing == "leading":
            timesteps = np.arange(steps)[::-1] * (total // steps)
        elif spacing == "trailing":
            timesteps = np.round(total - np.arange(steps) * (total / steps)) - 1
        elif spacing == "linspace":
            timesteps = np.round(np.linspace(0, total - 1, steps))[::-1]
        else:
            raise ValueError(f"spacing: found {spacing!r}, expected 'leading', 'trailing' or 'linspace'")
        return timesteps.astype(np.int32)

    def _coefficients(self, timestep: jax.Array, like: jax.Array) -> tuple[jax.Array, jax.Array]:
        """√ᾱ and √(1 - ᾱ) at ``timestep``, with trailing axes of length 1 up to the rank of ``like``."""
        signal = jnp.asarray(np.sqrt(self.exact_alphas_cumprod), jnp.float32)[timestep]
        sigma = jnp.asarray(np.sqrt(1.0 - self.exact_alphas_cumprod), jnp.float32)[timestep]
        shape = jnp.shape(timestep) + (1,) * (like.ndim - jnp.ndim(timestep))
        return signal.reshape(shape), sigma.reshape(shape)


Process = DDPM
