"""Batches of noise in the shape that a run's data has: no dataset and no encoder is needed."""

import jax
import jax.numpy as jnp
import numpy as np

from realiz3d_jax.config.schema import TrainConfig
from realiz3d_jax.method.interface import Iteration
from realiz3d_jax.training.step import Batch
from realiz3d_jax.views import VIEWS


def caption(config: TrainConfig) -> dict[str, np.ndarray]:
    """An encoded caption of full length, arrays [T, ...]."""
    data = config.data
    states = np.random.default_rng(0).standard_normal((data.text_tokens, data.text_channels), np.float32)
    return {"states": states, "mask": np.ones(data.text_tokens, bool), "pooled": states.mean(axis=0)}


def batch(config: TrainConfig, iteration: Iteration) -> Batch:
    """A host's batch of one kind of iteration."""
    grids, size, codec = config.data.batch_grids, config.data.size, config.codec
    params = jax.eval_shape(lambda: codec.init(jax.random.key(0)))
    images = jax.ShapeDtypeStruct((grids, VIEWS, size, size, 3), jnp.uint8)
    maps = jax.ShapeDtypeStruct((grids, VIEWS, size, size, 6), jnp.float32)
    made = {"image": _noise(jax.eval_shape(codec.encode, params, images))}
    if iteration.control:
        made["control"] = _noise(jax.eval_shape(codec.encode_control, params, maps))
    groups = (grids, 1 if iteration.joint else VIEWS)
    full = jax.tree.map(lambda array: np.broadcast_to(array, (*groups, *array.shape)).copy(), caption(config))
    return {**made, "captions": full}


def _noise(like: jax.ShapeDtypeStruct) -> np.ndarray:
    random = np.random.default_rng(1)
    if like.dtype == jnp.uint8:
        return random.integers(0, 256, like.shape, np.uint8)
    return random.standard_normal(like.shape, np.float32)
