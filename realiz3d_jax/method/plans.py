"""Plans: the treatment of each block in one training iteration or one sampling schedule (paper, sections 3.3 and 3.4).

With L blocks and a fraction tau, ``count(tau) = floor(tau L)``. A real iteration of Stage 2 draws

    (1)  i ~ U{0, ..., count(tau_B)}                                    the first i blocks are frozen (layer-aware training)
    (2)  j ~ U{0, ..., count(tau_B)} with probability p_B, else j = 0   the first j blocks run in synthetic mode (reassignment)

and sampling runs block l (from 0) at timestep t in

    (3)  synthetic mode if l < count(B_max) or t >= t_max, else in the requested domain (inference-time shifting).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from realiz3d_jax.method.domains import Domain


class BlockPlan(NamedTuple):
    """The plan of an iteration; a pytree of run-time values, so that all plans share one compilation.

    Attributes:
      frozen: int32[], the first ``frozen`` blocks are neither differentiated nor updated.
      domain: int32[L], the ``Domain`` whose shift each block runs with.
    """

    frozen: jax.Array
    domain: jax.Array


def count(fraction: float, depth: int) -> int:
    """The number of blocks that make up ``fraction`` of ``depth``, rounded down (the paper states fractions of N_B)."""
    return math.floor(fraction * depth + 1e-6)


def uniform_plan(domain: Domain, depth: int) -> BlockPlan:
    """The plan that freezes nothing and runs every block in ``domain``."""
    return BlockPlan(jnp.int32(0), jnp.full((depth,), domain, jnp.int32))


def draw_real_plan(key: jax.Array, depth: int, tau: float, reassignment_probability: float) -> BlockPlan:
    """Draws the plan of a real iteration of Stage 2, equations (1) and (2).

    Args:
      key: a PRNG key.
      depth: the number of blocks L.
      tau: tau_B as a fraction of L; 0 switches layer-aware training and reassignment off.
      reassignment_probability: p_B.
    """
    freeze_key, reassign_key, range_key = jax.random.split(key, 3)
    most = count(tau, depth)
    frozen = jax.random.randint(freeze_key, (), 0, most + 1)
    reassigned = jnp.where(
        jax.random.bernoulli(reassign_key, reassignment_probability), jax.random.randint(range_key, (), 0, most + 1), 0
    )
    domain = jnp.where(jnp.arange(depth) < reassigned, Domain.SYNTHETIC, Domain.REAL)
    return BlockPlan(frozen, domain.astype(jnp.int32))


def inference_plan(
    timesteps: np.ndarray, depth: int, domain: Domain, block_max: float = 0.0, timestep_max: int = 1000
) -> np.ndarray:
    """The domain of every block at every step of sampling, equation (3).

    Args:
      timesteps: int[S], the schedule's timesteps, in [0, 1000).
      depth: the number of blocks L.
      domain: the requested domain, in which all other blocks run.
      block_max: B_max as a fraction of L; 0 puts no block into synthetic mode.
      timestep_max: t_max; 1000 puts no timestep into synthetic mode.

    Returns:
      int32[S, L].
    """
    early_block = np.arange(depth) < count(block_max, depth)
    early_timestep = np.asarray(timesteps) >= timestep_max
    shifted = early_block[None, :] | early_timestep[:, None]
    return np.where(shifted, Domain.SYNTHETIC, domain).astype(np.int32)
