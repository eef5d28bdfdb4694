"""What a run carries from step to step, and nothing else: random numbers are derived from the step number.

Stream ``name`` of step n draws from ``fold_in(fold_in(key(seed), crc32(name)), n)``: no generator is carried or saved, and
adding a stream changes no other.
"""

import dataclasses
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import optax

from realiz3d_jax.method.interface import Params, Stage

Tree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """A pytree.

    Attributes:
      step: int32[], iterations done, skipped ones included.
      params: the stage's partitions, each a nested dict of float32 arrays.
      opt_state: the optimizer's state, which holds moments of the trainable partitions.
      ema: the moving average of the trainable partitions.
      skipped: int32[], how many steps were skipped as non-finite.
      skipped_in_a_row: int32[], how many of them the last steps were.
    """

    step: jax.Array
    params: Params
    opt_state: Tree
    ema: Params
    skipped: jax.Array
    skipped_in_a_row: jax.Array

    def sampling_params(self) -> Params:
        """The partitions that sampling uses: averaged where they train."""
        return {**self.params, **self.ema}


def new_state(params: Params, stage: Stage, optimizer: optax.GradientTransformationExtraArgs) -> TrainState:
    """The state at step 0. The average starts as a copy, since the state's buffers are donated to the step."""
    trainable = {name: params[name] for name in stage.trainable}
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, params, optimizer.init(params), jax.tree.map(jnp.copy, trainable), zero + 0, zero + 0)


def stream_key(seed: int, name: str, step: jax.Array | int) -> jax.Array:
    """The key of stream ``name`` at ``step``."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode())), step)
