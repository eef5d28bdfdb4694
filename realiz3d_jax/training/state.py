"""The state that a run carries from step to step, without random keys, which are derived from the step number.

Stream ``name`` at step n uses the key ``fold_in(fold_in(key(seed), crc32(name)), n)``: no generator is carried or saved, and
adding a stream changes no other.
"""

import dataclasses
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.tree_util import DictKey

from realiz3d_jax.method.interface import Params, Stage
from realiz3d_jax.models import backbone
from realiz3d_jax.sharding import params_sharding, replicated, rule, rules_of

Tree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The training state, a pytree.

    Attributes:
      step: int32[], completed iterations, including skipped ones.
      params: the stage's partitions, each a nested dict of float32 arrays.
      opt_state: the optimizer's state, with moments of the trainable partitions.
      ema: moving average of the trainable partitions.
      skipped: int32[], number of steps skipped as non-finite.
      skipped_in_a_row: int32[], number of consecutive skipped steps up to now.
    """

    step: jax.Array
    params: Params
    opt_state: Tree
    ema: Params
    skipped: jax.Array
    skipped_in_a_row: jax.Array

    def sampling_params(self) -> Params:
        """Returns the partitions for sampling: averages of the trainable ones, and the frozen ones."""
        return {**self.params, **self.ema}


def new_state(params: Params, stage: Stage, optimizer: optax.GradientTransformationExtraArgs) -> TrainState:
    """Returns the state at step 0; the average starts as a copy, since the state's buffers are donated to the step."""
    trainable = {name: params[name] for name in stage.trainable}
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, params, optimizer.init(params), jax.tree.map(jnp.copy, trainable), zero + 0, zero + 0)


def stream_key(seed: int, name: str, step: jax.Array | int) -> jax.Array:
    """Returns the random key of stream ``name`` at ``step``."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode())), step)


def state_sharding(state: TrainState, device_mesh: Mesh, config: backbone.Config) -> TrainState:
    """Returns the sharding of every leaf of a state or its shapes; moments and averages are sharded like their parameters."""
    params = params_sharding(state.params, device_mesh, rules_of(config))
    flat = zip(*(jax.tree_util.tree_leaves_with_path(tree) for tree in (state.params, params)), strict=True)
    places = {path: (leaf.shape, where) for (path, leaf), (_, where) in flat}

    def shard(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        """Matches a leaf to a parameter by the end of its path, whatever containers hold the optimizer's moments."""
        inner = next((n for n in range(len(path), 0, -1) if not isinstance(path[n - 1], DictKey)), 0)
        shape, where = places.get(path[inner:], (None, None))
        return where if leaf.shape == shape else replicated(device_mesh)

    whole: Any = replicated(device_mesh)  # a leaf of this state is a sharding
    return TrainState(
        step=whole,
        params=params,
        opt_state=jax.tree_util.tree_map_with_path(shard, state.opt_state),
        ema={name: params[name] for name in state.ema},
        skipped=whole,
        skipped_in_a_row=whole,
    )


def unsplit_parameters(state: TrainState, device_mesh: Mesh, config: backbone.Config) -> str:
    """Describes parameters that ``fsdp`` does not divide although the rules split them, and their extra memory; "" if none.

    Args:
      state: a state or its shapes.
      device_mesh: the device mesh.
      config: config of the backbone.
    """
    parts = device_mesh.shape["fsdp"]
    lines, total = [], 0.0
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
        name = "/".join(str(key.key) for key in path)
        axis = rule(name, rules_of(config))
        if axis is not None and leaf.shape[axis] % parts:
            copies = 4 if path[0].key in state.ema else 1  # parameters, two moments, average
            more = copies * leaf.size * leaf.dtype.itemsize * (1 - 1 / parts) / 2**20
            lines.append(f"  {name} {list(leaf.shape)}, axis {axis}: {more:.2f} MiB")
            total += more
    if not lines:
        return ""
    return "\n".join(
        [
            f"fsdp={parts} does not divide {len(lines)} parameters, so every device holds them whole, {total:.2f} MiB more "
            "than if they were split (including moments and averages):",
            *lines,
        ]
    )
