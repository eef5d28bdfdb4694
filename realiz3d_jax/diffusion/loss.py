"""The one training objective of every stage: the mean squared error of the predicted noise (Ho et al. 2020, eq. 14)."""

import einops
import jax
import jax.numpy as jnp


def epsilon_loss(prediction: jax.Array, noise: jax.Array, groups: int = 1) -> jax.Array:
    """float32[B, G]: (1)  mean over a group of ‖ε_θ - ε‖².

    Args:
      prediction: float[B, V, h, w, C or more]: only the first C channels are read, a learned sigma behind them is not.
      noise: float[B, V, h, w, C].
      groups: G, a divisor of V: 1 in the joint mode, V in the single-image mode.
    """
    error = prediction[..., : noise.shape[-1]].astype(jnp.float32) - noise.astype(jnp.float32)
    return einops.reduce(jnp.square(error), "b (g v) h w c -> b g", "mean", g=groups)


def timestep_weight(alphas_cumprod: jax.Array, timestep: jax.Array, cap: float) -> jax.Array:
    """float32[B, G]: (2)  min(max(1, 1 / SNR), cap),  SNR = ᾱ / (1 - ᾱ).

    From where noise prevails on, an error in ε weighs as the error in x_0 that it causes, up to ``cap``: a small model
    trained from nothing otherwise learns last what decides first, colours and layout. ``cap`` = 1 is the plain objective.
    """
    alphas_cumprod = alphas_cumprod[timestep]
    return jnp.clip((1.0 - alphas_cumprod) / alphas_cumprod, 1.0, cap)
