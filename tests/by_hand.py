"""Sampling and the loss of a training step, restated from the papers' formulas with nothing of the package but its model.

Where random numbers come from is documented, and restated, too: stream NAME of step n draws from
``fold_in(fold_in(key(seed), crc32(NAME)), n)``, a sample's first noise from ``key(seed)``, and the fresh noise of step i of
sampling from ``fold_in(fold_in(key(seed), 1), i)``.
"""

import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

Captions = dict[str, np.ndarray]

ALPHAS_CUMPROD = np.cumprod(1.0 - np.linspace(1e-4, 0.02, 1000))
"""Ho et al. 2020, with PixArt's variances."""


def ddpm_levels(timestep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Signal and noise in x = α x_0 + σ ε."""
    return np.sqrt(ALPHAS_CUMPROD[timestep]), np.sqrt(1.0 - ALPHAS_CUMPROD[timestep])


def ddpm_data(x: np.ndarray, prediction: np.ndarray, signal: float, sigma: float) -> np.ndarray:
    """x_0 where the model predicts ε."""
    return (x - sigma * prediction) / signal


def flow_levels(timestep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x = (1 - σ) x_0 + σ ε at timestep 1000 σ."""
    return 1.0 - np.asarray(timestep) / 1000, np.asarray(timestep) / 1000


def flow_data(x: np.ndarray, prediction: np.ndarray, signal: float, sigma: float) -> np.ndarray:
    """x_0 where the model predicts ε - x_0."""
    return x - sigma * prediction


def stream(seed: int, name: str, step: int) -> jax.Array:
    """The key of a stream of training."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode())), step)


def initial_noise(seeds: list[int], shape: tuple[int, ...]) -> np.ndarray:
    """What samples of these seeds start from: each is of ``shape``."""
    return np.stack([jax.random.normal(jax.random.key(seed), shape) for seed in seeds])


def sample(
    predict: Callable[..., jax.Array],
    params: Any,
    noise: np.ndarray,
    captions: Captions,
    empty_caption: Captions,
    plan: np.ndarray,
    control: np.ndarray | None,
    *,
    timesteps: np.ndarray,
    guidance_scale: float,
    eta: float = 0.0,
    seeds: list[int],
    levels: Callable = ddpm_levels,
    data: Callable = ddpm_data,
) -> np.ndarray:
    """DDIM with guidance on the text, for data in [-1, 1]: two calls of the model a step, one for each branch."""
    batch, groups = captions["mask"].shape[:2]
    nothing = {
        name: np.broadcast_to(empty_caption[name], array.shape).astype(array.dtype) for name, array in captions.items()
    }
    x = np.asarray(noise, np.float64)
    for index, timestep in enumerate(timesteps):
        at = np.full((batch, groups), timestep, np.asarray(timesteps).dtype)
        now = np.asarray(x, np.float32)
        without, given = (
            np.asarray(predict(params, now, at, text, domain=plan[index], control=control), np.float64)
            for text in (nothing, captions)
        )
        prediction = without + guidance_scale * (given - without)
        signal, sigma = levels(timestep)
        next_signal, next_sigma = levels(timesteps[index + 1]) if index + 1 < len(timesteps) else (1.0, 0.0)
        x0 = np.clip(data(x, prediction, signal, sigma), -1.0, 1.0)
        epsilon = (x - signal * x0) / sigma
        fresh = eta * next_sigma / sigma * np.sqrt(1.0 - (signal / next_signal) ** 2)
        x = next_signal * x0 + np.sqrt(next_sigma**2 - fresh**2) * epsilon
        keys = [jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), index) for seed in seeds]
        x = x + fresh * np.stack([jax.random.normal(key, x.shape[1:]) for key in keys])
    return x


def training_loss(
    predict: Callable[..., jax.Array],
    params: Any,
    batch: dict[str, Any],
    latents: np.ndarray,
    empty_caption: Captions,
    domain: np.ndarray,
    control: np.ndarray | None,
    *,
    seed: int,
    step: int,
    joint: bool,
    caption_dropout: float,
    cap: float,
) -> tuple[float, np.ndarray, np.ndarray]:
    """The loss of a step, and of each group [B, G] its own loss, not weighted, and its timestep."""
    shape = (len(latents), 1 if joint else 4)
    noise = np.asarray(jax.random.normal(stream(seed, "noise", step), latents.shape))
    timestep = np.asarray(jax.random.randint(stream(seed, "timestep", step), shape, 0, 1000))
    dropped = np.asarray(jax.random.bernoulli(stream(seed, "caption_dropout", step), caption_dropout, shape))
    captions = {}
    for name, array in batch["captions"].items():
        where = dropped.reshape(shape + (1,) * (array.ndim - 2))
        captions[name] = np.where(where, empty_caption[name], array)
    signal, sigma = (level[:, :, None, None, None] for level in ddpm_levels(timestep))
    noisy = np.asarray(signal * latents + sigma * noise, np.float32)
    prediction = predict(params, noisy, timestep, captions, domain=domain, control=control)
    squares = np.square(np.asarray(prediction, np.float64) - noise).mean(axis=(2, 3, 4))
    losses = squares.mean(axis=1, keepdims=True) if joint else squares
    weight = np.clip(1.0 / ALPHAS_CUMPROD[timestep] - 1.0, 1.0, cap)
    return float((weight * losses).mean()), losses, timestep
