"""Classifier-free guidance (Ho and Salimans 2022) on the text only.

    (1)  ε = ε(x, ∅) + s · (ε(x, text) - ε(x, ∅))

Control, timestep and domain plan are the same in both terms, so that guidance can't strengthen or weaken them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def combine(unconditional: jax.Array, conditional: jax.Array, scale: jax.Array | float) -> jax.Array:
    """Eq. (1). At ``scale`` 1 this is the conditional prediction, at 0 the unconditional one."""
    return unconditional + scale * (conditional - unconditional)


def both(unconditional: jax.Array, conditional: jax.Array) -> jax.Array:
    """[2B, ...], the two branches of each item side by side: of a batch that devices share, each device has both of its own."""
    batch, *shape = unconditional.shape
    return jnp.stack([unconditional, conditional], axis=1).reshape(2 * batch, *shape)


def guided(
    denoise: Callable[[jax.Array, jax.Array, jax.Array], jax.Array], scale: jax.Array | float
) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """A denoiser for ``samplers.sample`` that evaluates both terms in one call of twice the batch.

    Args:
      denoise: (x: float[2B, ...], timestep: int32[], index: int32[]) -> prediction: float[2B, ...]. Its rows must see
        ``both(empty, caption)`` under ``both(control, control)``.
      scale: s, the guidance scale.
    """

    def denoise_guided(x: jax.Array, timestep: jax.Array, index: jax.Array) -> jax.Array:
        prediction = denoise(both(x, x), timestep, index)
        unconditional, conditional = prediction[0::2], prediction[1::2]
        return combine(unconditional, conditional, scale)

    return denoise_guided
