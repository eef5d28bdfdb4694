"""Sampling from noise to data: DDIM and DPM-Solver++ 2M as two settings of one update.

Let α and σ be the levels of signal and noise in x = α x_0 + σ ε at a step's timestep (DDPM: α² = ᾱ, σ² = 1 - ᾱ), and α' and σ'
those where the step lands. The process converts the model's prediction to

    (1)  x_0 and ε,        for DDPM's ε: x_0 = (x - σ ε) / α

Every sampler here is

    (2)  x' = α' x_0 + √(σ'² - s²) ε + k (x_0 - x_0^previous) + s z,        z ~ N(0, I)

**DDIM** (Song et al. 2020, "Denoising Diffusion Implicit Models", eq. 12 and 16): k = 0 and

    (3)  s = η · σ'/σ · √(1 - α²/α'²)

η = 0 is deterministic, η = 1 is ancestral sampling.

**DPM-Solver++ 2M** (Lu et al. 2022, "DPM-Solver++", algorithm 2): s = 0. With λ = log(α/σ), h = λ' - λ, h_previous the
last step's h and r = h_previous/h, the algorithm's

    (4)  x' = (σ'/σ) x + α' (1 - e^{-h}) (x_0 + (x_0 - x_0^previous)/2r)

is eq. (2), since α' e^{-h} = α σ'/σ, with

    (5)  k = α' (1 - e^{-h}) / 2r

The first step and the last one, which lands on clean data (λ' = ∞), are of first order, k = 0, as in diffusers'
``DPMSolverMultistepScheduler`` (midpoint, ``lower_order_final``, ``final_sigmas_type="zero"``).

A step lands on the next timestep of the list, the last one on clean data (diffusers' ``set_alpha_to_one=True``). diffusers'
DDIM lands on t - T//S instead: the next timestep for "leading" spacing, and for "trailing" if S divides T.
Latents are unbounded, and clipping their x_0 would ruin them. Pixels are bounded: at ᾱ = 4e-5 an error of 1 % in ε is one of
158 % in x_0, so their x_0 is clipped, as in GLIDE (Nichol et al. 2022, ``use_clipped_model_output`` in diffusers),

    (6)  x_0 <- min(max(x_0, -b), b),   ε <- (x - α x_0) / σ
"""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from realiz3d_jax.diffusion.process import Process


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """The noise levels of a whole schedule, on the host: each array is float64[S].

    Attributes:
      signal, sigma: α and σ where a step starts.
      next_signal, next_sigma: α' and σ' where it lands.
    """

    signal: np.ndarray
    sigma: np.ndarray
    next_signal: np.ndarray
    next_sigma: np.ndarray


class Sampler(Protocol):
    """The parts in which samplers differ: the timesteps at which they evaluate, and the two free coefficients of eq. (2)."""

    def timesteps(self, process: Process, steps: int, spacing: str = "leading") -> np.ndarray:
        """The timesteps at which diffusers' sampler of the same name evaluates the model: [steps], descending."""
        ...

    def coefficients(self, trajectory: Trajectory) -> tuple[np.ndarray, np.ndarray]:
        """The coefficients of noise s and momentum k, each float64[S]."""
        ...


@dataclasses.dataclass(frozen=True)
class DDIM:
    """Eq. (3).

    Attributes:
      eta: the share of fresh noise, 0 to 1.
    """

    eta: float = 0.0

    def timesteps(self, process: Process, steps: int, spacing: str = "leading") -> np.ndarray:
        return process.sampling_timesteps(steps, spacing)

    def coefficients(self, trajectory: Trajectory) -> tuple[np.ndarray, np.ndarray]:
        ratio = trajectory.signal / trajectory.next_signal
        noise = self.eta * trajectory.next_sigma / trajectory.sigma * np.sqrt(1.0 - ratio**2)
        return noise, np.zeros_like(noise)


@dataclasses.dataclass(frozen=True)
class DPMSolverPP2M:
    """Eq. (5): second order from one evaluation per step."""

    def timesteps(self, process: Process, steps: int, spacing: str = "leading") -> np.ndarray:
        if spacing == "trailing":
            return process.sampling_timesteps(steps, spacing)
        # One more step, without its last timestep, 0: the log-SNR jumps so far on landing there (with ten steps λ goes from
        # 1 to 4.6) that the multistep extrapolation would spoil the sample.
        return process.sampling_timesteps(steps + 1, spacing)[:-1]

    def coefficients(self, trajectory: Trajectory) -> tuple[np.ndarray, np.ndarray]:
        momentum = np.zeros_like(trajectory.signal)
        inner = slice(1, -1)
        with np.errstate(divide="ignore"):  # pure noise has a log-SNR of minus infinity, and no momentum after it
            log_snr = np.log(trajectory.signal / trajectory.sigma)
        h = np.diff(log_snr)  # h[n]: the length of step n, for all but the last step
        momentum[inner] = trajectory.next_signal[inner] * -np.expm1(-h[1:]) * h[1:] / (2.0 * h[:-1])
        return np.zeros_like(momentum), momentum


def trajectory(process: Process, timesteps: np.ndarray) -> Trajectory:
    """The noise levels at descending ``timesteps`` [S]; the last step lands on clean data."""
    signal, sigma = process.levels(timesteps)
    signal, sigma = np.append(signal, 1.0), np.append(sigma, 0.0)
    return Trajectory(signal[:-1], sigma[:-1], signal[1:], sigma[1:])


def sample(
    sampler: Sampler,
    process: Process,
    timesteps: np.ndarray,
    denoise: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    noise: jax.Array,
    key: jax.Array,
    bound: float | None = None,
) -> jax.Array:
    """Samples x_0: float[B, ...] from pure noise in one ``lax.scan``; the caller jits it.

    Args:
      sampler: ``DDIM`` or ``DPMSolverPP2M``.
      process: the process that the model was trained with.
      timesteps: [S], descending, known at trace time (not a traced array): the coefficients of all steps are computed
        from them in float64. A schedule that starts below pure noise continues a partly noised ``noise`` (SDEdit).
      denoise: (x: float[B, ...], timestep: int32[] or float32[], index: int32[] in [0, S)) -> prediction: float[B, ...].
      noise: float[B, ...]: x at the first timestep; its dtype is the dtype of all arithmetic here.
      key: key of the fresh noise, which is drawn from ``fold_in(key, index)``; unused if the sampler takes none. One key, or B
        keys: then the noise of a sample does not depend on its batch.
      bound: b of eq. (6), for bounded data such as pixels; None for latents.
    """
    levels = trajectory(process, timesteps)
    fresh, momentum = sampler.coefficients(levels)
    residual = np.sqrt(np.maximum(levels.next_sigma**2 - fresh**2, 0.0))
    steps = {
        "timestep": jnp.asarray(timesteps, jnp.int32 if np.issubdtype(timesteps.dtype, np.integer) else jnp.float32),
        "index": jnp.arange(len(timesteps), dtype=jnp.int32),
        "coefficients": jnp.asarray(
            np.stack([levels.signal, levels.sigma, levels.next_signal, residual, momentum, fresh], axis=-1), noise.dtype
        ),
    }
    stochastic = bool(np.any(fresh > 0.0))

    def step(carry: tuple[jax.Array, jax.Array], now: dict[str, jax.Array]) -> tuple[tuple[jax.Array, jax.Array], None]:
        x, previous = carry
        signal, sigma, next_signal, residual, momentum, fresh = now["coefficients"]
        prediction = denoise(x, now["timestep"], now["index"]).astype(x.dtype)
        x0, epsilon = process.split(x, prediction, signal, sigma)  # (1)
        if bound is not None:
            x0 = jnp.clip(x0, -bound, bound)  # (6)
            epsilon = (x - signal * x0) / sigma
        x = next_signal * x0 + residual * epsilon + momentum * (x0 - previous)  # (2)
        if stochastic:
            x = x + fresh * _fresh_noise(key, now["index"], x)
        return (x, x0), None

    (x, _), _ = jax.lax.scan(step, (noise, jnp.zeros_like(noise)), steps)
    return x


def _fresh_noise(key: jax.Array, index: jax.Array, like: jax.Array) -> jax.Array:
    if key.ndim:
        return jax.vmap(_fresh_noise, (0, None, 0))(key, index, like)
    return jax.random.normal(jax.random.fold_in(key, index), like.shape, like.dtype)
