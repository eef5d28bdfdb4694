"""The training objective of every stage: the mean squared error of the prediction (Ho et al. 2020, eq. 14).

(1)  loss = mean over a group of ‖prediction - target‖²
"""

import einops
import jax
import jax.numpy as jnp


def squared_error(prediction: jax.Array, target: jax.Array, groups: int = 1) -> jax.Array:
    """Eq. (1) for every group: float32[B, G].

    Args:
      prediction: float[B, V, h, w, C or more]; only the first C channels are read, not a learned sigma after them.
      target: float[B, V, h, w, C].
      groups: G, a divisor of V: 1 in the joint mode, V in the single-image mode.
    """
    error = prediction[..., : target.shape[-1]].astype(jnp.float32) - target.astype(jnp.float32)
    return einops.reduce(jnp.square(error), "b (g v) h w c -> b g", "mean", g=groups)
