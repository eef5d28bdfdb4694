"""Domain Shifters: one low-rank shift of all tokens in front of every block (paper, section 3.2).

    (1)  X~ = X + W_left W_right e_domain,   W_left in R^{D x R}, W_right in R^{R x D}, e_synthetic, e_real in R^D

A shift depends only on the block and the domain, so the shifts of all blocks and both domains are one small array; the
backbone takes them as ``block_shift`` and knows nothing of domains. ``W_left`` starts at zero: at step 0 the model is the
base model, bit for bit. The parameters are a separate partition, never leaves of the backbone's tree, so no filter can
confuse the two.
"""

import jax
import jax.numpy as jnp

from realiz3d_jax.method.domains import Domain


def init(depth: int, width: int, rank: int, key: jax.Array) -> dict[str, jax.Array]:
    """The shifters of all L blocks, stacked: ``left`` [L, D, R] (zeros), ``right`` [L, R, D], ``embedding`` [L, 2, D]."""
    right_key, embedding_key = jax.random.split(key)
    return {
        "left": jnp.zeros((depth, width, rank)),
        "right": jax.random.normal(right_key, (depth, rank, width)) * width**-0.5,
        "embedding": jax.random.normal(embedding_key, (depth, len(Domain), width)),
    }


def apply(params: dict[str, jax.Array]) -> jax.Array:
    """The shift of each domain before each block, equation (1): float32[2, L, D], first axis ``Domain``."""
    low_rank = jnp.einsum("lrd,lsd->lsr", params["right"], params["embedding"])
    return jnp.einsum("ldr,lsr->sld", params["left"], low_rank)


def select(shifts: jax.Array, domain: jax.Array) -> jax.Array:
    """The ``block_shift`` float32[L, 1, D] of a plan: from shifts float32[2, L, D] and domain int32[L]."""
    return shifts[domain, jnp.arange(domain.shape[0])][:, None, :]
