"""The outputs of ``realiz3d_jax.convert``: autoencoders and text encoders, one ``.safetensors`` file each, and their folders.

Tensors are named by their path, "/" between keys. The metadata holds ``config`` (JSON, with the class name as ``class``) and
``facts`` (JSON: the command, the source, the SHA-256 of the parameters). Converted transformers are exported checkpoints
instead, see ``release``.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import safetensors

from realiz3d_jax import files
from realiz3d_jax.checkpoints.importers import mapping, tensor_files
from realiz3d_jax.checkpoints.importers.huggingface import IMPORTERS, TOKENIZER, Imported
from realiz3d_jax.errors import UserError

COMMAND = "python -m realiz3d_jax.convert"
"""Prefix of ``command`` in the facts of all converted files."""

AUTOENCODER, TEXT_ENCODER = "vae.safetensors", "text_encoder.safetensors"
"""File names of converted encoders."""

_CLASSES = {kind.__name__: kind for kind in IMPORTERS}
_FIX = f"Make it with {COMMAND} --source."


def write(path: str | os.PathLike[str], config: Any, params: mapping.Params, facts: dict[str, Any]) -> None:
    """Writes a converted model atomically.

    Args:
      path: file to write.
      config: config of the model.
      params: NumPy arrays, float32 or bfloat16.
      facts: JSON values stored in the metadata.
    """
    values = {"class": type(config).__name__, **dataclasses.asdict(config)}
    with files.new_file(path) as new:
        tensor_files.write_safetensors(
            new, mapping.flatten(params), {"config": json.dumps(values), "facts": json.dumps(facts)}
        )


def read_header(path: str | os.PathLike[str], kind: type) -> tuple[Any, dict[str, Any]]:
    """Reads the config and facts of a converted model, without its arrays.

    Args:
      path: file of the model.
      kind: required class of its config.

    Raises:
      UserError: as ``read``.
    """
    with _open(path) as file:
        return _config(path, file, kind), json.loads(file.metadata()["facts"])


def read(path: str | os.PathLike[str], kind: type, lay: Callable[[mapping.Params], Any] | None = None) -> Imported:
    """Reads a converted model array by array, in its stored dtype.

    Args:
      path: file of the model.
      kind: required class of its config.
      lay: returns the shardings of the leaves, given their shapes; without it, the leaves stay NumPy arrays.

    Raises:
      UserError: the file is missing, truncated, not a converted model, or of another kind.
    """
    with _open(path) as file:
        config = _config(path, file, kind)
        like = _like(config)
        names, expected = set(file.keys()), mapping.flatten(like)
        if different := sorted(names ^ set(expected)):
            found = "found" if different[0] in names else "missing"
            raise UserError(
                f"{path}: {different[0]} is {found}; expected the arrays of this version's {kind.__name__}. {_FIX}"
            )
        places = jax.tree.leaves(lay(like)) if lay else [None] * len(expected)
        leaves = []
        for name, place in zip(expected, places, strict=True):
            array = file.get_tensor(name)
            leaves.append(array if place is None else jax.block_until_ready(jax.device_put(array, place)))
        facts = json.loads(file.metadata()["facts"])
    return Imported(config, jax.tree.unflatten(jax.tree.structure(like), leaves), facts)


def checksum_on_disk(path: str | os.PathLike[str], config: Any, prefix: str = "") -> str:
    """Computes ``huggingface.checksum`` of a file's parameters, reading one array at a time.

    Args:
          path: file of the model.
      config: config of the model.
      prefix: prefix of the arrays' names: "", or the partition and "/" in an exported checkpoint.

    Raises:
      UserError: the file is missing or truncated.
    """
    digest = hashlib.sha256()
    with _open(path) as file:
        for name in mapping.flatten(_like(config)):
            digest.update(tensor_files.as_bytes(file.get_tensor(prefix + name)))
    return digest.hexdigest()


def is_replaceable(folder: str | os.PathLike[str], exported: bool = False) -> bool:
    """Returns whether ``folder`` was made by ``COMMAND``, according to the facts of its files; False if it is empty or missing.

    Args:
      folder: folder to check.
      exported: True for a folder made by ``--export``, False for one converted from another project's weights; one does not
        replace the other.

    Raises:
      UserError: the folder holds anything else.
    """
    folder = pathlib.Path(folder)
    held = sorted(folder.iterdir()) if folder.is_dir() else []
    weights = [path for path in held if path.suffix == ".safetensors"]
    others = [path for path in held if path.name not in (TOKENIZER, "config.json") and path not in weights]
    strange = others + [path for path in weights if not _is_ours(path, exported)]
    if strange or (held and not weights) or (folder.exists() and not folder.is_dir()):
        raise UserError(
            f"{folder}: found {(strange or held or [folder])[0].name}, expected no folder or one made by {COMMAND}; only that "
            "is replaced. Choose another folder or remove this one."
        )
    return bool(held)


def _is_ours(path: pathlib.Path, exported: bool) -> bool:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            command = json.loads((file.metadata() or {})["facts"])["command"]
            return command.startswith(COMMAND) and exported == ("--export" in command)
    except (OSError, LookupError, ValueError, safetensors.SafetensorError):
        return False


@contextlib.contextmanager
def _open(path: str | os.PathLike[str]) -> Iterator[Any]:
    try:
        file = safetensors.safe_open(path, framework="numpy")
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file; expected a converted model (.safetensors). {_FIX}") from error
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(
            f"{path}: cannot be read as safetensors ({error}); it is truncated or damaged. {_FIX}"
        ) from error
    with file:
        yield file


def _config(path: str | os.PathLike[str], file: Any, expected: type) -> Any:
    try:
        values = json.loads((file.metadata() or {})["config"])
        kind = _CLASSES[values.pop("class")]
        config = kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: is not a converted model of this version ({type(error).__name__}: {error}); "
            f"expected its config in the metadata. {_FIX}"
        ) from error
    if kind is not expected:
        raise UserError(f"{path}: holds a model of {kind.__name__}; expected {expected.__name__}. {_FIX}")
    return config


def _like(config: Any) -> mapping.Params:
    return jax.eval_shape(lambda: IMPORTERS[type(config)].init(config, jax.random.key(0)))
