"""What ``realiz3d_jax.convert`` makes: converted autoencoders and text encoders, one ``.safetensors`` each, and its folders.

Tensors are named by their path, "/" between keys; the metadata holds ``config`` (JSON, with the class' name as ``class``) and
``facts`` (JSON: the command, the source, the SHA-256 of the numbers). Converted transformers are model files instead.
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
"""What the facts of everything that it makes begin with, by their ``command``."""

AUTOENCODER, TEXT_ENCODER = "vae.safetensors", "text_encoder.safetensors"
"""What converted encoders are called in their folder."""

_CLASSES = {kind.__name__: kind for kind in IMPORTERS}
_MEND = f"Make it with {COMMAND} --source."


def write(path: str | os.PathLike[str], config: Any, params: mapping.Params, facts: dict[str, Any]) -> None:
    """Writes a model in one step; ``params`` are NumPy arrays, float32 or bfloat16."""
    values = {"class": type(config).__name__, **dataclasses.asdict(config)}
    with files.new_file(path) as new:
        tensor_files.write_safetensors(
            new, mapping.flatten(params), {"config": json.dumps(values), "facts": json.dumps(facts)}
        )


def read_header(path: str | os.PathLike[str], kind: type) -> tuple[Any, dict[str, Any]]:
    """Config and facts of a converted model; its arrays are not read.

    Raises:
      UserError: as ``read``.
    """
    with _open(path) as file:
        return _config(path, file, kind), json.loads(file.metadata()["facts"])


def read(path: str | os.PathLike[str], kind: type, lay: Callable[[mapping.Params], Any] | None = None) -> Imported:
    """Reads a converted model in the dtype that it was written in, array by array.

    Args:
      kind: the class that its config must have.
      lay: gives the shardings of its leaves, from their shapes; without it they stay NumPy arrays.

    Raises:
      UserError: the file is missing, truncated, not a converted model, or one of another kind.
    """
    with _open(path) as file:
        config = _config(path, file, kind)
        like = _like(config)
        names, expected = set(file.keys()), mapping.flatten(like)
        if different := sorted(names ^ set(expected)):
            found = "found" if different[0] in names else "missing"
            raise UserError(
                f"{path}: {different[0]} is {found}; expected the arrays of this version's {kind.__name__}. {_MEND}"
            )
        places = jax.tree.leaves(lay(like)) if lay else [None] * len(expected)
        leaves = []
        for name, place in zip(expected, places, strict=True):
            array = file.get_tensor(name)
            leaves.append(array if place is None else jax.block_until_ready(jax.device_put(array, place)))
        facts = json.loads(file.metadata()["facts"])
    return Imported(config, jax.tree.unflatten(jax.tree.structure(like), leaves), facts)


def checksum_on_disk(path: str | os.PathLike[str], config: Any, prefix: str = "") -> str:
    """``huggingface.checksum`` of what a file holds, read one array at a time.

    Args:
      config: of the model in it.
      prefix: of the arrays' names: none, or a model file's partition and "/".

    Raises:
      UserError: the file is missing or truncated.
    """
    digest = hashlib.sha256()
    with _open(path) as file:
        for name in mapping.flatten(_like(config)):
            digest.update(tensor_files.as_bytes(file.get_tensor(prefix + name)))
    return digest.hexdigest()


def is_replaceable(folder: str | os.PathLike[str], exported: bool = False) -> bool:
    """Whether ``folder`` is one that ``COMMAND`` made, by the facts of its files; False if nothing is there.

    Args:
      exported: by ``--export``; else from another project's weights. Neither takes the place of the other.

    Raises:
      UserError: something else is there.
    """
    folder = pathlib.Path(folder)
    held = sorted(folder.iterdir()) if folder.is_dir() else []
    weights = [path for path in held if path.suffix == ".safetensors"]
    others = [path for path in held if path.name not in (TOKENIZER, "config.json") and path not in weights]
    strange = others + [path for path in weights if not _is_ours(path, exported)]
    if strange or (held and not weights) or (folder.exists() and not folder.is_dir()):
        raise UserError(
            f"{folder}: found {(strange or held or [folder])[0].name}, expected nothing or what {COMMAND} made; only that is "
            "replaced. Choose another folder or remove this one."
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
        raise UserError(f"{path}: there is no such file; expected a converted model (.safetensors). {_MEND}") from error
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(
            f"{path}: cannot be read as safetensors ({error}); it is truncated or damaged. {_MEND}"
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
            f"{path}: is no converted model of this version ({type(error).__name__}: {error}); "
            f"expected its config in the metadata. {_MEND}"
        ) from error
    if kind is not expected:
        raise UserError(f"{path}: holds a model of {kind.__name__}; expected {expected.__name__}. {_MEND}")
    return config


def _like(config: Any) -> mapping.Params:
    return jax.eval_shape(lambda: IMPORTERS[type(config)].init(config, jax.random.key(0)))
