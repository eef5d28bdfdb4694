"""How a model's arrays lie on a device mesh while it is traced: the batch over all devices, whatever its parameters do.

By default the partitioner follows the parameters, which ``fsdp`` splits along contracted axes: every device would then compute
the activations of the whole batch. So a model constrains the batch axis wherever tokens enter a block, and a kernel that
cannot be partitioned runs on each device's own part.
"""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
from jax.sharding import AbstractMesh, Mesh, PartitionSpec

BATCH_AXES = ("data", "fsdp")
"""The mesh axes that a batch is split over, together."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def on_device_mesh(
    device_mesh: Mesh | AbstractMesh, function: Callable[Arguments, Result]
) -> Callable[Arguments, Result]:
    """``function``, traced where ``split_batch`` and ``on_each_device`` see the device mesh."""
    abstract = device_mesh.abstract_mesh if isinstance(device_mesh, Mesh) else device_mesh

    @functools.wraps(function)
    def run(*arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
        with jax.sharding.use_abstract_mesh(abstract):
            return function(*arguments, **named)

    return run


def device_count() -> int:
    """The devices of the device mesh that is traced for; 1 without one."""
    device_mesh = jax.sharding.get_abstract_mesh()
    return 1 if device_mesh.empty else device_mesh.size


def split_batch(tree: Any, axis: int = 0) -> Any:
    """Splits ``axis`` of every array over all devices of the device mesh that is traced for.

    Arrays stay as they are without a device mesh, and where the devices do not divide that axis: then each computes all of it.
    """

    def constrain(array: jax.Array) -> jax.Array:
        spec = _batch_spec(array.shape[axis])
        return array if spec is None else jax.lax.with_sharding_constraint(array, PartitionSpec(*[None] * axis, *spec))

    return jax.tree.map(constrain, tree)


def on_each_device(function: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    """``function(*arrays)`` with each device computing its own part of the leading axis, the batch.

    For kernels that the partitioner cannot split; ``function`` must treat rows independently. Where the devices do not divide
    that axis, each computes all of it.
    """
    device_mesh = jax.sharding.get_abstract_mesh()
    if device_mesh.empty:
        return function(*arrays)
    spec = _batch_spec(arrays[0].shape[0]) or PartitionSpec()
    return jax.shard_map(function, mesh=device_mesh, in_specs=spec, out_specs=spec, check_vma=False)(*arrays)


def _batch_spec(size: int) -> PartitionSpec | None:
    device_mesh = jax.sharding.get_abstract_mesh()
    return None if device_mesh.empty or size % device_mesh.size else PartitionSpec(BATCH_AXES)
