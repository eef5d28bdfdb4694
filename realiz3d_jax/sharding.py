"""The device mesh and the one table that states the layout of every array of a run on it.

Mesh axes: ``data`` replicates parameters, ``fsdp`` shards them; the batch is split over both. The table maps a parameter's path
to the axis that ``fsdp`` splits, always one of width (never the stacked axis, and never a fused one, which would be
split across its parts). Every leaf must be matched by exactly one rule, so a new parameter cannot go unnoticed.
"""

import dataclasses
import re
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from realiz3d_jax.errors import UserError
from realiz3d_jax.models import backbone
from realiz3d_jax.models.parallel import BATCH_AXES

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


@dataclasses.dataclass(frozen=True)
class DeviceConfig:
    """The device mesh; -1 takes what is left. ``data`` replicates parameters, ``fsdp`` shards them."""

    data: int = -1
    fsdp: int = 1


def rules_of(config: backbone.Config) -> tuple[tuple[str, int | None], ...]:
    """The table of a model with this backbone."""
    return (*((f"backbone/{pattern}", axis) for pattern, axis in backbone.of(config).PARTS.split), *RULES)


def make_device_mesh(
    config: DeviceConfig,
    devices: list[jax.Device] | None = None,  # pyright: ignore[reportInvalidTypeForm]  # jaxlib has no stubs
) -> Mesh:
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
        axis = rule("/".join(str(key.key) for key in path), rules)
        if axis is None or leaf.shape[axis] % device_mesh.shape["fsdp"]:
            return replicated(device_mesh)
        return NamedSharding(device_mesh, PartitionSpec(*[None] * axis, "fsdp"))

    return jax.tree_util.tree_map_with_path(sharding, params)


def rule(path: str, rules: tuple[tuple[str, int | None], ...]) -> int | None:
    """The axis that ``fsdp`` splits of the parameter at ``path``; raises ValueError unless exactly one rule matches."""
    matches = [axis for pattern, axis in rules if re.fullmatch(pattern, path)]
    if len(matches) != 1:
        raise ValueError(f"parameter {path!r} is matched by {len(matches)} sharding rules, expected exactly one")
    return matches[0]
