"""Fixed sinusoidal features of token positions and timesteps; no parameters.

    position  i of an axis of n tokens:  p_i = i / (n / base_size) / scale                                          (1)
    features of p over c channels:       [sin(p w_k), cos(p w_k)],  w_k = 10000^(-k / (c/2)),  k = 0 .. c/2 - 1     (2)
    timestep t over c channels:          [cos(t w_k), sin(t w_k)]                                                   (3)

Source: diffusers ``models/embeddings.py`` (``get_2d_sincos_pos_embed``, ``get_timestep_embedding`` with
``flip_sin_to_cos=True, downscale_freq_shift=0``), the layout that PixArt's weights were trained with.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from realiz3d_jax.views import ORDER


def position_features(rows: int, columns: int, channels: int, base_size: int, scale: float) -> np.ndarray:
    """Equations (1) and (2) for a grid: the first half of the channels encodes the column, the second half the row.

    Returns:
      float32[rows, columns, channels]; (1) in float32 and (2) in float64, as the reference does. ``channels`` is a
      multiple of 4.
    """

    def places(tokens: int) -> np.ndarray:
        return np.arange(tokens, dtype=np.float32) / np.float32(tokens / base_size) / np.float32(scale)

    return _features_of_places(places(rows), places(columns), channels)


def middle_position_features(rows: int, columns: int, channels: int, base_size: int, max_size: int) -> np.ndarray:
    """The middle of the features of a grid of ``max_size`` x ``max_size`` tokens, as Stable Diffusion 3 takes them.

    Returns:
      float32[rows, columns, channels].
    """

    def places(tokens: int) -> np.ndarray:
        start = (max_size - tokens) // 2
        return np.arange(start, start + tokens, dtype=np.float32) / np.float32(max_size / base_size)

    return _features_of_places(places(rows), places(columns), channels)


def _features_of_places(rows: np.ndarray, columns: np.ndarray, channels: int) -> np.ndarray:
    frequencies = 10000.0 ** (-np.arange(channels // 4, dtype=np.float64) / (channels / 4))

    def axis(places: np.ndarray) -> np.ndarray:
        angles = np.outer(places.astype(np.float64), frequencies)
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)

    shape = (len(rows), len(columns), channels // 2)
    by_column, by_row = np.broadcast_to(axis(columns)[None], shape), np.broadcast_to(axis(rows)[:, None], shape)
    return np.concatenate([by_column, by_row], axis=-1).astype(np.float32)


def grid_position_features(
    features: Callable[[int, int], np.ndarray], views: int, rows: int, columns: int, positions: str
) -> np.ndarray:
    """Position features of every tile of a grid of views, in the order of ``views.ORDER``.

    Args:
      features: (rows, columns) -> float32[rows, columns, D], the features of a picture with that many tokens.
      views: V; for "canvas" a square number.
      rows, columns: tokens of one tile.
      positions: "canvas": a tile takes the rows and columns of its place in the single picture that sqrt(V) x sqrt(V) tiles
        form. "view": every tile takes those of a separate picture, the only ones that a published base's weights were
        trained with.

    Returns:
      float32[V, N, D], N = rows * columns.
    """
    if positions == "view":
        single = rearrange(features(rows, columns), "r c d -> 1 (r c) d")
        return np.broadcast_to(single, (views, *single.shape[1:]))
    side = math.isqrt(views)
    if side * side != views:
        raise ValueError(f"a canvas takes a square number of views, not {views}")
    return rearrange(
        features(side * rows, side * columns), f"(row r) (column c) d -> {ORDER} (r c) d", row=side, column=side
    )


def timestep_features(timestep: jax.Array, channels: int) -> jax.Array:
    """Equation (3). timestep: int32 or float32[...] -> float32[..., channels].

    The exponent is rounded to float32 before it is exponentiated, as the reference does: at t = 999 the exact
    frequencies would differ by 2e-5 radians from those that the weights were trained with.
    """
    exponents = np.float32(-math.log(10000.0)) * np.arange(channels // 2, dtype=np.float32) / np.float32(channels // 2)
    frequencies = np.exp(exponents.astype(np.float64)).astype(np.float32)
    angles = timestep.astype(jnp.float32)[..., None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
