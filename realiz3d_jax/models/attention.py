"""Attention: one function with three back ends, chosen by the configuration and never replaced silently.

    out = softmax(q k^T / sqrt(h) + bias) v      per head of h channels, softmax in float32

"xla"     everywhere.
"cudnn"   NVIDIA GPUs, bfloat16: the fused kernel behind ``jax.nn.dot_product_attention``.
"splash"  TPUs: the Pallas kernel, forward and backward, each device on its own sequences.

Masked (cross-)attention always runs through XLA: text tokens are few, and a bias on padded ones costs nothing.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from realiz3d_jax.errors import UserError
from realiz3d_jax.models import parallel

BACKENDS = {"xla": None, "cudnn": "gpu", "splash": "tpu"}
"""Back end -> the platform that it requires, or None."""

MASKED = -10000.0
"""Added to the score of a masked token, as in the reference; finite, so that an all-masked row gives no NaN."""

_SPLASH_BLOCK = 128

_target_platform: contextvars.ContextVar[str | None] = contextvars.ContextVar("target_platform", default=None)


@contextlib.contextmanager
def compiling_for(platform: str) -> Iterator[None]:
    """Marks everything traced inside as compiled ahead of time for ``platform``, which need not be this machine's."""
    token = _target_platform.set(platform)
    try:
        yield
    finally:
        _target_platform.reset(token)


def check_backend(backend: str) -> None:
    """Raises UserError if ``backend`` is unknown or cannot run on the platform that is compiled for."""
    if backend not in BACKENDS:
        raise UserError(f"attention: found {backend!r}, expected one of {', '.join(BACKENDS)}.")
    needed = BACKENDS[backend]
    platform = _target_platform.get() or jax.default_backend()
    if needed is not None and platform != needed:
        raise UserError(f"attention: {backend!r} needs a {needed}, this platform is {platform}; use attention='xla'.")


def attend(
    query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array | None = None, *, backend: str = "xla"
) -> jax.Array:
    """Multi-head attention.

    Args:
      query: float[S, Q, K, h], S sequences of Q tokens.
      key, value: float[S, M, K, h].
      bias: float32[S, M], added to every score of a key, or None.
      backend: one of ``BACKENDS``, used where there is no bias.

    Returns:
      float[S, Q, K, h] in the dtype of ``value``.

    Raises:
      UserError: the back end is not available, or cannot take this dtype or number of tokens.
    """
    check_backend(backend)
    if bias is not None or backend == "xla":
        return _xla(query, key, value, bias)
    if backend == "cudnn":
        if query.dtype != jnp.bfloat16:
            raise UserError(f"attention: 'cudnn' needs dtype bfloat16, found {query.dtype}; use attention='xla'.")
        return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")
    if query.shape[1] % _SPLASH_BLOCK or key.shape[1] % _SPLASH_BLOCK:
        raise UserError(
            f"attention: 'splash' needs a multiple of {_SPLASH_BLOCK} tokens, found {query.shape[1]} queries and "
            f"{key.shape[1]} keys; use attention='xla'."
        )
    return _splash(query, key, value)


def _xla(query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array | None) -> jax.Array:
    scores = jnp.einsum("sqkh,smkh->skqm", query, key, preferred_element_type=jnp.float32) * query.shape[-1] ** -0.5
    if bias is not None:
        scores = scores + bias[:, None, None, :]
    return jnp.einsum("skqm,smkh->sqkh", jax.nn.softmax(scores, axis=-1).astype(value.dtype), value)


def _splash(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    # Imported here because the kernel's module initialises Pallas for TPUs, which other platforms need not have.
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel, splash_attention_mask

    heads, tokens = query.shape[2], (query.shape[1], key.shape[1])
    mask = splash_attention_mask.MultiHeadMask([splash_attention_mask.FullMask(tokens)] * heads)
    kernel = splash_attention_kernel.make_splash_mha(
        mask, head_shards=1, q_seq_shards=1, residual_checkpoint_name="attention"
    )
    swap = lambda array: array.swapaxes(1, 2)  # noqa: E731
    run = lambda *arrays: swap(jax.vmap(kernel)(*map(swap, arrays)))  # noqa: E731
    return parallel.on_each_device(run, query * query.shape[-1] ** -0.5, key, value)
