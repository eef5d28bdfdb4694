"""The one training objective of every stage: the mean squared error of what the model predicts (Ho et al. 2020, eq. 14)."""

import einops
import jax
import jax.numpy as jnp


def squared_error(prediction: jax.Array, target: jax.Array, groups: int = 1) -> jax.Array:
    """float32[B, G]: (1)  mean over a group of ‖prediction - target‖².

    Args:
      prediction: float[B, V, h, w, C or more]: only the first C channels are read, a learned sigma behind them is not.
      target: float[B, V, h, w, C].
      groups: G, a divisor of V: 1 in the joint mode, V in the single-image mode.
    """
    error = prediction[..., : target.shape[-1]].astype(jnp.float32) - target.astype(jnp.float32)
    return einops.reduce(jnp.square(error), "b (g v) h w c -> b g", "mean", g=groups)
