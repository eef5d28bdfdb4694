"""The encoder of T5 v1.1, whose states PixArt and Stable Diffusion 3 read captions from.

With n an RMS norm, p(i - j) a learned bias for the bucket of a distance, shared by all layers, and no scale of the scores:

    x <- x + W_o softmax(q k^T + p + mask) v          q, k, v = W n(x)                    (1)
    x <- x + W_2 (GELU(W_gate n(x)) * W_1 n(x))       tanh approximation                  (2)
    states = n(x)                                                                         (3)

Source: Raffel et al. (arXiv 1910.10683), section 2.1; Shazeer (arXiv 2002.05202) for (2); transformers ``T5EncoderModel``,
whose arithmetic is reproduced so that its weights load.

Parameters are a nested dict; the layers' are stacked on a leading axis L and scanned. Matrix products run in ``dtype``; norms,
scores and softmax in float32.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding
from jax.typing import DTypeLike

Params = dict[str, Any]

_NORM_EPSILON = 1e-6
_MASKED = float(np.finfo(np.float32).min)


@dataclasses.dataclass(frozen=True)
class T5Config:
    """Size of an encoder; the defaults are T5 v1.1 XXL's.

    Attributes:
      width: D.
      depth: L.
      heads: K, of ``head_channels`` each; K h need not be D.
      hidden: hidden width of the gated MLP.
      vocabulary: number of token embeddings.
      buckets, max_distance: buckets of relative positions, and the distance at which they end; distances are exact up to a
        quarter of the buckets.
      dtype: dtype of the matrix products and of the residual stream.
    """

    width: int = 4096
    depth: int = 24
    heads: int = 64
    head_channels: int = 64
    hidden: int = 10240
    vocabulary: int = 32128
    buckets: int = 32
    max_distance: int = 128
    dtype: str = "bfloat16"


def init(config: T5Config, key: jax.Array) -> Params:
    """Fresh float32 parameters, those of the layers stacked [L, ...]."""
    return nnx.to_pure_dict(nnx.state(_Encoder(config, nnx.Rngs(params=key)), nnx.Param))


def apply(
    config: T5Config, params: Params, tokens: jax.Array, mask: jax.Array, sharding: NamedSharding | None = None
) -> jax.Array:
    """The encoder's states of tokens.

    Args:
      tokens: int32[B, T].
      mask: bool[B, T], True for tokens that count.
      sharding: sharding of the leading axis. It is required where parameters are split: otherwise the states would be split
        by width, like the embeddings that they begin with, and every device would compute the whole batch.

    Returns:
      float32[B, T, D].
    """
    return nnx.merge(_graph(config), params)(tokens, mask, sharding)


def position_buckets(tokens: int, buckets: int, max_distance: int) -> np.ndarray:
    """The bucket int32[T, T] of every (query, key); half of the buckets are for keys after the query.

    In each half the first half is exact, the rest is logarithmic up to ``max_distance``.
    """
    half, exact = buckets // 2, buckets // 4
    distance = np.arange(tokens)[None, :] - np.arange(tokens)[:, None]
    size = np.abs(distance)
    # In float32, as the reference does: at a bucket's edge the rounding decides.
    growth = np.log(np.maximum(size, 1).astype(np.float32) / np.float32(exact)) / np.float32(
        np.log(max_distance / exact)
    )
    far = np.minimum(exact + (growth * np.float32(half - exact)).astype(np.int32), half - 1)
    return (np.where(size < exact, size, far) + half * (distance > 0)).astype(np.int32)


@functools.cache
def _graph(config: T5Config) -> nnx.GraphDef:
    return nnx.graphdef(nnx.eval_shape(lambda: _Encoder(config, nnx.Rngs(params=jax.random.key(0)))))


def _linear(
    inputs: int | Sequence[int],
    outputs: int | Sequence[int],
    config: T5Config,
    rngs: nnx.Rngs,
    axis: int | Sequence[int] = -1,
) -> nnx.LinearGeneral:
    return nnx.LinearGeneral(inputs, outputs, axis=axis, use_bias=False, dtype=config.dtype, rngs=rngs)


class _Norm(nnx.Module):
    def __init__(self, width: int, dtype: DTypeLike):
        self.dtype = dtype
        self.scale = nnx.Param(jnp.ones(width))

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.astype(jnp.float32)
        x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + _NORM_EPSILON)
        return (x * self.scale[...].astype(jnp.float32)).astype(self.dtype)


class _Layer(nnx.Module):
    def __init__(self, config: T5Config, rngs: nnx.Rngs):
        heads = (config.heads, config.head_channels)
        self.attention_norm, self.mlp_norm = (_Norm(config.width, config.dtype) for _ in range(2))
        self.query_key_value = _linear(config.width, (3, *heads), config, rngs)
        self.attention_out = _linear(heads, config.width, config, rngs, axis=(-2, -1))
        self.mlp_in = _linear(config.width, (2, config.hidden), config, rngs)
        self.mlp_out = _linear(config.hidden, config.width, config, rngs)

    def __call__(self, x: jax.Array, bias: jax.Array) -> jax.Array:
        fused = self.query_key_value(self.attention_norm(x))
        query, key, value = (fused[:, :, index] for index in range(3))
        scores = jnp.einsum("sqkh,smkh->skqm", query, key, preferred_element_type=jnp.float32) + bias
        weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
        x = x + self.attention_out(jnp.einsum("skqm,smkh->sqkh", weights, value))
        gated = self.mlp_in(self.mlp_norm(x))
        return x + self.mlp_out(jax.nn.gelu(gated[:, :, 0], approximate=True) * gated[:, :, 1])


class _Encoder(nnx.Module):
    def __init__(self, config: T5Config, rngs: nnx.Rngs):
        self.config = config
        self.embedding = nnx.Embed(config.vocabulary, config.width, dtype=config.dtype, rngs=rngs)
        self.position_bias = nnx.Param(jax.random.normal(rngs.params(), (config.buckets, config.heads)))
        keys = jax.random.split(rngs.params(), config.depth)
        self.layers = jax.vmap(lambda key: _Layer(config, nnx.Rngs(params=key)))(keys)
        self.norm = _Norm(config.width, jnp.float32)

    def __call__(self, tokens: jax.Array, mask: jax.Array, sharding: NamedSharding | None) -> jax.Array:
        config = self.config
        buckets = position_buckets(tokens.shape[1], config.buckets, config.max_distance)
        bias = self.position_bias[...].astype(jnp.float32)[buckets].transpose(2, 0, 1)
        bias = bias + jnp.where(mask, 0.0, _MASKED)[:, None, None, :]
        x = self.embedding(tokens)
        if sharding is not None:
            x = jax.lax.with_sharding_constraint(x, sharding)

        def step(x: jax.Array, index: jax.Array) -> tuple[jax.Array, None]:
            # XLA for CPUs slices bfloat16 as float32; without the barrier it converts all layers before the loop (XXL: 19 GB).
            layers, index = jax.lax.optimization_barrier((self.layers, index))
            layer = jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), layers)
            return layer(x, bias), None

        x, _ = jax.lax.scan(step, x, jnp.arange(config.depth))
        return self.norm(x)
