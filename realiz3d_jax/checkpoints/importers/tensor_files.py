"""Reads safetensors, sharded safetensors and PyTorch ``.pth`` checkpoints tensor by tensor, and writes safetensors.

PyTorch is not required. Loading a ``.pth`` executes no code: its pickle may name only tensors and containers.
"""

import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import safetensors

from realiz3d_jax.errors import UserError

INDEX = ".safetensors.index.json"

_SAFETENSORS_DTYPES = {np.dtype(np.float32): "F32", np.dtype(ml_dtypes.bfloat16): "BF16"}
_TORCH_DTYPES = {
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "DoubleStorage": np.dtype(np.float64),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
}


@dataclasses.dataclass(frozen=True)
class Tensors:
    """The tensors of a checkpoint; data is read on demand.

    Attributes:
      path: the opened file, for messages.
      shapes: shape of every tensor, by name.
      read: reads a tensor by name.
    """

    path: pathlib.Path
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]


@contextlib.contextmanager
def open_checkpoint(path: str | os.PathLike[str]) -> Iterator[Tensors]:
    """Opens a checkpoint file, or the only checkpoint in a folder of the Hugging Face layout.

    Raises:
      UserError: there is no checkpoint, there are several, or it is damaged.
    """
    path = _find(pathlib.Path(path))
    with contextlib.ExitStack() as stack:
        if path.suffix == ".safetensors":
            yield _safetensors(path, {None: path}, stack)
        elif path.name.endswith(INDEX):
            yield _safetensors(path, _shards(path), stack)
        else:
            yield _pth(path, stack)


def write_safetensors(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes tensors as a safetensors file, copying at most one at a time.

    Implements the format of github.com/huggingface/safetensors (README, "Format"), whose own writer requires all tensors to be
    contiguous at once.

    Args:
      path: file to write.
      tensors: float32 or bfloat16 arrays by name, of any strides.
      metadata: strings stored in the file's header.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        dtype = _SAFETENSORS_DTYPES[tensor.dtype]
        header[name] = {"dtype": dtype, "shape": tensor.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(as_bytes(tensor))


def as_bytes(array: np.ndarray) -> np.ndarray:
    """Returns the bytes uint8[n] of an array, copying only if it is not contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _find(path: pathlib.Path) -> pathlib.Path:
    if path.is_file():
        return path
    indices = sorted(path.glob(f"*{INDEX}"))
    found = indices or sorted([*path.glob("*.safetensors"), *path.glob("*.pth")])
    # Folders often hold half-precision copies beside the full-precision weights.
    plain = [file for file in found if ".fp16." not in file.name and ".non_ema." not in file.name] or found
    if len(plain) != 1:
        names = ", ".join(file.name for file in plain) or "none"
        raise UserError(
            f"{path}: found {names}; expected one checkpoint (.safetensors, {INDEX} or .pth). Pass the file itself."
        )
    return plain[0]


def _shards(index: pathlib.Path) -> dict[str | None, pathlib.Path]:
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        raise UserError(f"{index}: is not a valid index of shards ({error}); fetch it again.") from error
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise UserError(f"{index}: names {len(missing)} missing files: {', '.join(missing)}; fetch them.")
    return {name: index.parent / name for name in names}


def _safetensors(path: pathlib.Path, files: Mapping[Any, pathlib.Path], stack: contextlib.ExitStack) -> Tensors:
    shapes, owners = {}, {}
    for file in files.values():
        try:
            opened = stack.enter_context(safetensors.safe_open(file, framework="numpy"))
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(
                f"{file}: cannot be read as safetensors ({error}); it is truncated or damaged. Fetch it again."
            ) from error
        for name in opened.keys():  # noqa: SIM118 (not a mapping)
            shapes[name], owners[name] = tuple(opened.get_slice(name).get_shape()), opened

    def read(name: str) -> np.ndarray:
        try:
            return owners[name].get_tensor(name)
        except (AttributeError, TypeError, safetensors.SafetensorError) as error:
            dtype = owners[name].get_slice(name).get_dtype()
            raise UserError(
                f"{path}: {name} has dtype {dtype}, which NumPy does not support; expected floats of 16 bits or more. "
                "Quantised weights cannot be converted; fetch the full-precision ones."
            ) from error

    return Tensors(path, shapes, read)


@dataclasses.dataclass(frozen=True)
class _Stored:
    """Location of a ``.pth`` tensor's data in the archive."""

    storage: str
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _pth(path: pathlib.Path, stack: contextlib.ExitStack) -> Tensors:
    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
        (listing,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        with archive.open(listing) as file:
            content = _Unpickler(file).load()
    except (OSError, ValueError, zipfile.BadZipFile, pickle.UnpicklingError, EOFError) as error:
        raise UserError(
            f"{path}: cannot be read as a PyTorch checkpoint ({error}); expected a complete file written by torch.save."
        ) from error
    while isinstance(content, dict) and "state_dict" in content:
        content = content["state_dict"]
    tensors = {name: value for name, value in dict(content).items() if isinstance(value, _Stored)}
    folder = listing.removesuffix("data.pkl")

    def read(name: str) -> np.ndarray:
        stored = tensors[name]
        with archive.open(f"{folder}data/{stored.storage}") as file:
            numbers = np.frombuffer(file.read(), stored.dtype)[stored.offset :]
        strides = [stride * stored.dtype.itemsize for stride in stored.strides]
        return np.lib.stride_tricks.as_strided(numbers, stored.shape, strides, writeable=False)

    return Tensors(path, {name: stored.shape for name, stored in tensors.items()}, read)


class _Unpickler(pickle.Unpickler):
    """Accepts tensors and containers only, and rejects every other name."""

    def persistent_load(self, pid: Any) -> tuple[str, np.dtype]:
        _, kind, key, *_ = pid
        return key, kind

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _TORCH_DTYPES:
            return _TORCH_DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: _Stored(*storage, offset, tuple(size), tuple(stride))
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        raise pickle.UnpicklingError(f"it names {module}.{name}; expected tensors and containers only")
