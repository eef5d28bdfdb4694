"""Layers that transformers share: modulated norms, perceptrons, embeddings of numbers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from realiz3d_jax.models import embeddings

_NORM_EPSILON = 1e-6

_CHECKPOINT_POLICIES = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "attention": jax.checkpoint_policies.save_only_these_names("attention"),
}

zeros = nnx.initializers.zeros_init()
narrow = nnx.initializers.variance_scaling(0.5, "fan_in", "normal")
"""PixArt draws with a deviation of 0.02 at a width of 1152; this is that deviation, and stays of use at a width of 128."""


def xavier(fan_in: int, fan_out: int) -> nnx.Initializer:
    """Glorot's uniform initialiser for fans that the array's shape does not tell."""
    limit = (6.0 / (fan_in + fan_out)) ** 0.5
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -limit, limit)


def modulated(x: jax.Array, scale: jax.Array, shift: jax.Array, dtype: str) -> jax.Array:
    """LN(x) (1 + scale) + shift, in float32. x: [S, n, D]; scale, shift: float32[S, 1, D]."""
    x = x.astype(jnp.float32)
    x = x - x.mean(-1, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + _NORM_EPSILON)
    return (x * (1.0 + scale) + shift).astype(dtype)


def remat(step: Callable, policy: str, scan_unroll: int) -> Callable:
    """A step of a scan over blocks whose backward pass keeps what ``policy`` says: "none" keeps all."""
    if policy == "none":
        return step
    # Between two steps of a scan nothing can be shared; within an unrolled step it could, and undo the remat.
    return jax.checkpoint(step, policy=_CHECKPOINT_POLICIES[policy], prevent_cse=scan_unroll > 1)


class Perceptron(nnx.Module):
    """Linear, activation, linear."""

    def __init__(self, channels, hidden, out, activation, kernel_inits, dtype, rngs):
        self.activation = activation
        self.first = nnx.Linear(channels, hidden, kernel_init=kernel_inits[0], dtype=dtype, rngs=rngs)
        self.second = nnx.Linear(hidden, out, kernel_init=kernel_inits[1], dtype=dtype, rngs=rngs)

    def __call__(self, x):
        return self.second(self.activation(self.first(x)))


class NumberEmbedding(Perceptron):
    """Timesteps (or sizes): int32[S] or float32[S] -> float32[S, width]."""

    def __init__(self, channels, width, rngs):
        super().__init__(channels, width, width, jax.nn.silu, (narrow, narrow), jnp.float32, rngs)
        self.channels = channels

    def __call__(self, numbers):
        return super().__call__(embeddings.timestep_features(numbers, self.channels))
