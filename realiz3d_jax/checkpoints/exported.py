"""Exported checkpoints: one ``.safetensors`` with the partitions that sampling needs, the config, and how it was made.

Tensors are named ``partition/path/of/the/leaf``; the metadata holds ``config`` (JSON) and ``facts`` (JSON: the command, the
seed and the metrics). Wherever parameters are read, an exported checkpoint and a workdir can stand for one another.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from realiz3d_jax import files, sharding
from realiz3d_jax.checkpoints import workdirs
from realiz3d_jax.config.build import outline
from realiz3d_jax.config.schema import TrainConfig, from_stored, to_json
from realiz3d_jax.errors import UserError
from realiz3d_jax.method.interface import Params
from realiz3d_jax.sharding import DeviceConfig

PRETRAINED = pathlib.Path(__file__).parent.parent / "pretrained"
"""Folder of the models that ship with the project."""

TRANSFORMER = "transformer.safetensors"
"""Name of the exported checkpoint in the folder of a converted model."""


@dataclasses.dataclass(frozen=True)
class ExportedCheckpoint:
    """The content of such a file.

    Attributes:
      params: ``{partition: nested dict of numpy arrays}``.
      config: config of its training.
      facts: command, seed and metrics, as far as they are known.
    """

    params: Params
    config: TrainConfig
    facts: dict[str, Any]


def write(path: str | os.PathLike[str], model: ExportedCheckpoint) -> None:
    """Writes an exported checkpoint in one step."""
    flat = {name: np.ascontiguousarray(leaf) for name, leaf in workdirs.flatten(model.params)}
    metadata = {"config": to_json(model.config), "facts": json.dumps(model.facts)}
    with files.new_file(path) as new:
        safetensors.numpy.save_file(flat, new, metadata)


def read(path: str | os.PathLike[str]) -> ExportedCheckpoint:
    """Reads an exported checkpoint.

    Raises:
      UserError: the file is missing, truncated, or not an exported checkpoint.
    """
    with _open(path) as file:
        config, facts = _metadata(path, file)
        flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    return ExportedCheckpoint(_nested(flat), config, facts)


def read_config(source: str | os.PathLike[str]) -> TrainConfig:
    """The config of an exported checkpoint or of a workdir's newest checkpoint.

    Raises:
      UserError: nothing is there, or it is damaged.
    """
    if not pathlib.Path(source).exists():
        raise UserError(
            f"{source}: there is no such workdir or exported checkpoint; name one that realiz3d_jax.train has written."
        )
    source = find(source)
    if not source.is_file():
        return workdirs.read_config(source)
    with _open(source) as file:
        config = _metadata(source, file)[0]
    if (
        source.name == TRANSFORMER
    ):  # published weights know a picture by itself; files of earlier versions did not say so
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, positions="view"))
    return config


def find(source: str | os.PathLike[str]) -> pathlib.Path:
    """Path of the parameters: ``source`` itself, or the transformer in a converted folder."""
    inside = pathlib.Path(source) / TRANSFORMER
    return inside if inside.is_file() else pathlib.Path(source)


def read_params(source: str | os.PathLike[str], like: Params) -> Params:
    """Partitions of an exported checkpoint or of a workdir's newest checkpoint (averaged where they were trained).

    Args:
      like: ``{partition: tree of ShapeDtypeStruct}``, with shardings; without one, leaves of a file stay on the host.

    Raises:
      UserError: it lacks a partition, or a parameter is missing, surplus or of another shape.
    """
    source = find(source)
    if not source.is_file():
        return workdirs.read_params(source, like)
    with _open(source) as file:
        names = [name for name in file.keys() if name.split("/")[0] in like]  # noqa: SIM118 (not a mapping)
        found = _nested({name: jax.ShapeDtypeStruct(file.get_slice(name).get_shape(), np.float32) for name in names})
        if missing := [name for name in like if name not in found]:
            held = sorted({name.split("/")[0] for name in file.keys()})  # noqa: SIM118
            raise UserError(f"{source}: has no partition {missing[0]!r}; it holds {', '.join(held)}.")
        workdirs.check_shapes(source, found, like)

        def put(path: tuple[jax.tree_util.DictKey, ...], leaf: jax.ShapeDtypeStruct) -> Any:
            array = file.get_tensor("/".join(key.key for key in path))
            if leaf.sharding is None:
                return array
            return jax.block_until_ready(jax.device_put(np.asarray(array, leaf.dtype), leaf.sharding))

        return jax.tree_util.tree_map_with_path(put, like)


def read_on_host(source: str | os.PathLike[str]) -> tuple[TrainConfig, Params]:
    """The config and the partitions (averaged, NumPy arrays) of an exported checkpoint or a workdir.

    An exported checkpoint is held once.

    Raises:
      UserError: nothing is there, it is damaged, or its parameters are not those that its config describes.
    """
    config = read_config(source)
    like = outline(config)[1]
    if not find(source).is_file():
        everywhere = sharding.replicated(sharding.make_device_mesh(DeviceConfig()))
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), like)
    return config, jax.device_get(read_params(source, like))


def checksum(params: Params) -> str:
    """SHA-256 of parameters, as float32, in hexadecimal."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(np.asarray(jax.device_get(leaf), np.float32).tobytes())
    return digest.hexdigest()


def _nested(flat: dict[str, Any]) -> Params:
    params: Params = {}
    for name, leaf in flat.items():
        *folders, last = name.split("/")
        node = params
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = leaf
    return params


@contextlib.contextmanager
def _open(path: str | os.PathLike[str]) -> Iterator[Any]:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            yield file
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file; expected an exported checkpoint (.safetensors).") from error
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(
            f"{path}: cannot be read as safetensors ({error}); the file is damaged. Fetch or make it again."
        ) from error


def _metadata(path: str | os.PathLike[str], file: Any) -> tuple[TrainConfig, dict[str, Any]]:
    metadata = file.metadata() or {}
    if "config" not in metadata:
        raise UserError(
            f"{path}: has no 'config' in its metadata, so it is not an exported checkpoint; make one with realiz3d_jax.convert."
        )
    try:
        return from_stored(json.loads(metadata["config"])), json.loads(metadata.get("facts", "{}"))
    except (UserError, ValueError) as error:
        raise UserError(
            f"{path}: its metadata is of another version ({error}) Make it again with realiz3d_jax.convert."
        ) from error
