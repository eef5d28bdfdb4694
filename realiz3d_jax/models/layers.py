"""Layers shared by the transformers: modulated norms, perceptrons, embeddings of numbers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike

from realiz3d_jax.models import embeddings

_NORM_EPSILON = 1e-6

_CHECKPOINT_POLICIES = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "attention": jax.checkpoint_policies.save_only_these_names("attention"),
}

zeros = nnx.initializers.zeros_init()
narrow = nnx.initializers.variance_scaling(0.5, "fan_in", "normal")
"""A standard deviation of 0.02 at a width of 1152, as PixArt's, that scales so that it also suits a width of 128."""


def xavier(fan_in: int, fan_out: int) -> nnx.Initializer:
    """Glorot's uniform initialiser for given fans, where the array's shape does not determine them."""
    limit = (6.0 / (fan_in + fan_out)) ** 0.5
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -limit, limit)


def modulated(x: jax.Array, scale: jax.Array, shift: jax.Array, dtype: str) -> jax.Array:
    """LN(x) (1 + scale) + shift, in float32, returned as ``dtype``; x: [S, n, D]; scale, shift: float32[S, 1, D]."""
    x = x.astype(jnp.float32)
    x = x - x.mean(-1, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + _NORM_EPSILON)
    return (x * (1.0 + scale) + shift).astype(dtype)


def remat(step: Callable, policy: str, scan_unroll: int) -> Callable:
    """A step of a scan over blocks whose backward pass keeps the activations named by ``policy``; "none" keeps all."""
    if policy == "none":
        return step
    # Between two steps of a scan nothing can be shared; within an unrolled step it could, and undo the remat.
    return jax.checkpoint(step, policy=_CHECKPOINT_POLICIES[policy], prevent_cse=scan_unroll > 1)


def run_unless_frozen(
    run: Callable[..., Any], operands: tuple[Any, ...], frozen: jax.Array | None, skip_backward: bool
) -> Any:
    """``run(*operands)`` with gradients stopped if ``frozen``.

    Args:
      run: a block.
      operands: its arguments.
      frozen: bool[]; None never stops them.
      skip_backward: whether the backward pass of a frozen block is skipped at run time, or computed and masked.
    """
    if frozen is None:
        return run(*operands)
    if skip_backward:
        # The branches hold the whole block: only then does the frozen one have no backward pass to run.
        return jax.lax.cond(frozen, lambda *given: jax.lax.stop_gradient(run(*given)), run, *operands)
    return jax.tree.map(lambda new: jnp.where(frozen, jax.lax.stop_gradient(new), new), run(*operands))


def shifted(x: jax.Array, shift: jax.Array | None) -> jax.Array:
    """Tokens in their own dtype, with a block's shift added in float32; None adds nothing."""
    return x if shift is None else (x.astype(jnp.float32) + shift).astype(x.dtype)


def shift_of_sequences(block_shift: jax.Array | None, groups: int) -> jax.Array | None:
    """A shift [L, B|1, D] repeated for the ``groups`` sequences of each grid: float32[L, B G|1, 1, D]; None stays None."""
    if block_shift is None:
        return None
    if block_shift.shape[1] > 1:
        block_shift = jnp.repeat(block_shift, groups, axis=1)
    return block_shift[:, :, None, :].astype(jnp.float32)


def unpatch(tokens: jax.Array, batch: int, views: int, height: int, side: int) -> jax.Array:
    """Rearranges sequences [B G, (V/G) N, p p C] of patches of ``side`` p into grids [B, V, h, w, C] of ``height`` h."""
    groups = tokens.shape[0] // batch
    pattern = "(b g) (v r c) (p q e) -> b (g v) (r p) (c q) e"
    return rearrange(tokens, pattern, b=batch, v=views // groups, r=height // side, p=side, q=side)


class Perceptron(nnx.Module):
    """Linear, activation, linear."""

    def __init__(
        self,
        channels: int,
        hidden: int,
        out: int,
        activation: Callable[[jax.Array], jax.Array],
        kernel_inits: tuple[nnx.Initializer, nnx.Initializer],
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.activation = activation
        self.first = nnx.Linear(channels, hidden, kernel_init=kernel_inits[0], dtype=dtype, rngs=rngs)
        self.second = nnx.Linear(hidden, out, kernel_init=kernel_inits[1], dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.second(self.activation(self.first(x)))


class NumberEmbedding(Perceptron):
    """The embedding of timesteps or sizes: int32[S] or float32[S] -> float32[S, width]."""

    def __init__(self, channels: int, width: int, rngs: nnx.Rngs):
        super().__init__(channels, width, width, jax.nn.silu, (narrow, narrow), jnp.float32, rngs)
        self.channels = channels

    def __call__(self, numbers: jax.Array) -> jax.Array:
        return super().__call__(embeddings.timestep_features(numbers, self.channels))
