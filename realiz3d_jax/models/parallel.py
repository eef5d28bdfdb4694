"""How a model's arrays lie on a device mesh while it is traced: the batch over all devices, whatever its parameters do.

Left to itself the partitioner follows the parameters, which ``fsdp`` splits along contracted axes: then every device computes
the activations of the whole batch. So a model constrains the batch axis wherever tokens enter a block, and a kernel that
cannot be partitioned runs on each device's own part.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.sharding import AbstractMesh, Mesh, PartitionSpec

BATCH_AXES = ("data", "fsdp")
"""The mesh axes that a batch is split over, together."""

Function = TypeVar("Function", bound=Callable[..., Any])


def on_device_mesh(device_mesh: Mesh | AbstractMesh, function: Function) -> Function:
    """``function``, traced where ``split_batch`` and ``on_each_device`` see the device mesh."""
    abstract = device_mesh.abstract_mesh if isinstance(device_mesh, Mesh) else device_mesh

    @functools.wraps(function)
    def run(*arguments: Any) -> Any:
        with jax.sharding.use_abstract_mesh(abstract):
            return function(*arguments)

    return run


def device_count() -> int:
    """The devices of the device mesh that is traced for; 1 without one."""
    device_mesh = jax.sharding.get_abstract_mesh()
    return 1 if device_mesh.empty else device_mesh.size


def split_batch(tree: Any, axis: int = 0) -> Any:
    """Arrays with ``axis`` split over all devices that are traced for.

    They stay as they are where there is no device mesh, or where its devices do not divide that axis: each then computes all.
    """

    def constrain(array: jax.Array) -> jax.Array:
        spec = _batch_spec(array.shape[axis])
        return array if spec is None else jax.lax.with_sharding_constraint(array, PartitionSpec(*[None] * axis, *spec))

    return jax.tree.map(constrain, tree)


def on_each_device(function: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    """``function(*arrays)``, of which each device computes its own part of the leading axis, that of the batch.

    For kernels that the partitioner cannot cut; ``function`` treats every row alone. Where the devices do not divide that axis,
    each computes all of it.
    """
    device_mesh = jax.sharding.get_abstract_mesh()
    if device_mesh.empty:
        return function(*arrays)
    spec = _batch_spec(arrays[0].shape[0]) or PartitionSpec()
    return jax.shard_map(function, mesh=device_mesh, in_specs=spec, out_specs=spec, check_vma=False)(*arrays)


def _batch_spec(size: int) -> PartitionSpec | None:
    device_mesh = jax.sharding.get_abstract_mesh()
    return None if device_mesh.empty or size % device_mesh.size else PartitionSpec(BATCH_AXES)
