"""Classifier-free guidance (Ho and Salimans 2022) on the text only.

    (1)  ε = ε(x, ∅) + s · (ε(x, text) - ε(x, ∅))

Control, timestep and domain plan are the same in both terms, so guidance neither strengthens nor weakens them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def combine(unconditional: jax.Array, conditional: jax.Array, scale: jax.Array | float) -> jax.Array:
    """Eq. (1). At ``scale`` 1 this is the conditional prediction, at 0 the unconditional one."""
    return unconditional + scale * (conditional - unconditional)


def both(unconditional: jax.Array, conditional: jax.Array) -> jax.Array:
    """Interleaves the two branches of each item, [2B, ...], so that a device that holds an item holds both of its branches."""
    batch, *shape = unconditional.shape
    return jnp.stack([unconditional, conditional], axis=1).reshape(2 * batch, *shape)


def guided(
    denoise: Callable[[jax.Array, jax.Array, jax.Array], jax.Array], scale: jax.Array | float
) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """A denoiser for ``samplers.sample`` that evaluates both terms in one call at twice the batch size.

    Args:
      denoise: (x: float[2B, ...], timestep: int32[], index: int32[]) -> prediction: float[2B, ...]. Its rows must be
        conditioned on ``both(empty, caption)`` and ``both(control, control)``.
      scale: s, the guidance scale.
    """

    def denoise_guided(x: jax.Array, timestep: jax.Array, index: jax.Array) -> jax.Array:
        prediction = denoise(both(x, x), timestep, index)
        unconditional, conditional = prediction[0::2], prediction[1::2]
        return combine(unconditional, conditional, scale)

    return denoise_guided
