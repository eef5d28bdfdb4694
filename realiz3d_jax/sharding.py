"""The device mesh and the one table that says how every array of a run lies on it.

Mesh axes: ``data`` replicates parameters, ``fsdp`` shards them; the batch is split over both. The table maps a parameter's path
to the axis that ``fsdp`` splits, always one of width (never the stacked axis, and never one that is fused from several
meanings: those would be cut across). Every leaf must be matched by exactly one rule, so a new parameter cannot go unnoticed.
"""

import re
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.tree_util import DictKey

from realiz3d_jax.config.schema import DeviceConfig
from realiz3d_jax.errors import UserError
from realiz3d_jax.models import backbone
from realiz3d_jax.models.parallel import BATCH_AXES
from realiz3d_jax.training.state import TrainState

Tree = Any

RULES: tuple[tuple[str, int | None], ...] = (
    (r"control/kernel", None),
    (r"shifters/(left|right|embedding)", None),
    (r"text_encoder/embedding/embedding", 1),  # [vocabulary, D]
    (r"text_encoder/layers/query_key_value/kernel", 1),  # [L, D, 3, K, h]
    (r"text_encoder/layers/attention_out/kernel", 3),  # [L, K, h, D]
    (r"text_encoder/layers/mlp_(in|out)/kernel", 1),  # [L, D, 2, hidden], [L, hidden, D]
    (r"text_encoder/(position_bias|(layers/(attention|mlp)_)?norm/scale)", None),
    (r"autoencoder/.+", None),  # small beside the others
)
"""(path, the axis that ``fsdp`` splits or None), matched against the whole path; the backbone's own rules come on top."""


def rules_of(config: backbone.Config) -> tuple[tuple[str, int | None], ...]:
    """The table of a model with this backbone."""
    return (*((f"backbone/{pattern}", axis) for pattern, axis in backbone.of(config).PARTS.split), *RULES)


def make_device_mesh(config: DeviceConfig, devices: list[jax.Device] | None = None) -> Mesh:
    """The device mesh of ``config`` over ``devices`` (all, by default).

    Raises:
      UserError: the axes' product is not the number of devices.
    """
    devices = devices or jax.devices()
    sizes = [config.data, config.fsdp]
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = len(devices) // max(-int(np.prod(sizes)), 1)
    if min(sizes) < 1 or np.prod(sizes) != len(devices):
        raise UserError(
            f"config.devices: data={config.data}, fsdp={config.fsdp} does not fit {len(devices)} devices; "
            "their product must be that number (-1 takes what is left)."
        )
    return jax.make_mesh(tuple(sizes), BATCH_AXES, axis_types=(AxisType.Auto, AxisType.Auto), devices=devices)


def batch_sharding(device_mesh: Mesh) -> NamedSharding:
    """The leading axis over all devices."""
    return NamedSharding(device_mesh, PartitionSpec(BATCH_AXES))


def replicated(device_mesh: Mesh) -> NamedSharding:
    """One copy on every device."""
    return NamedSharding(device_mesh, PartitionSpec())


def params_sharding(params: Tree, device_mesh: Mesh, rules: tuple[tuple[str, int | None], ...] = RULES) -> Tree:
    """The sharding of every leaf of ``{partition: ...}``, by ``rules``.

    Raises:
      ValueError: a leaf is matched by no rule or by several.
    """

    def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        axis = _rule("/".join(str(key.key) for key in path), rules)
        if axis is None or leaf.shape[axis] % device_mesh.shape["fsdp"]:
            return replicated(device_mesh)
        return NamedSharding(device_mesh, PartitionSpec(*[None] * axis, "fsdp"))

    return jax.tree_util.tree_map_with_path(sharding, params)


def state_sharding(state: TrainState, device_mesh: Mesh, config: backbone.Config) -> TrainState:
    """The sharding of every leaf of a state, or of its shapes: moments and averages lie like their parameters."""
    params = params_sharding(state.params, device_mesh, rules_of(config))
    flat = zip(*(jax.tree_util.tree_leaves_with_path(tree) for tree in (state.params, params)), strict=True)
    places = {path: (leaf.shape, where) for (path, leaf), (_, where) in flat}

    def shard(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        """By the parameter that the end of the path names, whatever containers the optimizer keeps its moments in."""
        inner = next((n for n in range(len(path), 0, -1) if not isinstance(path[n - 1], DictKey)), 0)
        shape, where = places.get(path[inner:], (None, None))
        return where if leaf.shape == shape else replicated(device_mesh)

    return TrainState(
        step=replicated(device_mesh),
        params=params,
        opt_state=jax.tree_util.tree_map_with_path(shard, state.opt_state),
        ema={name: params[name] for name in state.ema},
        skipped=replicated(device_mesh),
        skipped_in_a_row=replicated(device_mesh),
    )


def unsplit(state: TrainState, device_mesh: Mesh, config: backbone.Config) -> str:
    """What the table would split and ``fsdp`` does not divide, with the memory that it costs; "" if there is nothing.

    Args:
      state: a state or its shapes.
    """
    parts = device_mesh.shape["fsdp"]
    lines, total = [], 0.0
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
        name = "/".join(str(key.key) for key in path)
        axis = _rule(name, rules_of(config))
        if axis is not None and leaf.shape[axis] % parts:
            copies = 4 if path[0].key in state.ema else 1  # parameters, two moments, average
            more = copies * leaf.size * leaf.dtype.itemsize * (1 - 1 / parts) / 2**20
            lines.append(f"  {name} {list(leaf.shape)}, axis {axis}: {more:.2f} MiB")
            total += more
    if not lines:
        return ""
    return "\n".join(
        [
            f"fsdp={parts} does not divide {len(lines)} parameters, so every device holds all of them, {total:.2f} MiB more "
            "than if they were split (moments and averages included):",
            *lines,
        ]
    )


def _rule(path: str, rules: tuple[tuple[str, int | None], ...]) -> int | None:
    matches = [axis for pattern, axis in rules if re.fullmatch(pattern, path)]
    if len(matches) != 1:
        raise ValueError(f"parameter {path!r} is matched by {len(matches)} sharding rules, expected exactly one")
    return matches[0]
