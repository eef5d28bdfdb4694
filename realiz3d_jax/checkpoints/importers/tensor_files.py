"""Checkpoints tensor by tensor: safetensors, sharded safetensors, and PyTorch's ``.pth`` are read, safetensors are written.

No PyTorch is needed. Nothing of a ``.pth`` is executed: its pickle may name tensors and containers only.
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
    """The tensors of a checkpoint; data is read when it is asked for.

    Attributes:
      path: what was opened, for messages.
      shapes: of every tensor, by its name.
      read: a tensor by its name.
    """

    path: pathlib.Path
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]


@contextlib.contextmanager
def open_checkpoint(path: str | os.PathLike[str]) -> Iterator[Tensors]:
    """Opens a file, or the one checkpoint in a folder of the Hugging Face layout.

    Raises:
      UserError: there is none, several could be meant, or it is damaged.
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
    """Writes tensors, float32 or bfloat16, which may be views of any strides: no more than one is copied at a time.

    The format is that of github.com/huggingface/safetensors (README, "Format"), whose own writer wants all of them contiguous.
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
    """The bytes of an array, uint8[n]; only what is not contiguous is copied."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _find(path: pathlib.Path) -> pathlib.Path:
    if path.is_file():
        return path
    indices = sorted(path.glob(f"*{INDEX}"))
    found = indices or sorted([*path.glob("*.safetensors"), *path.glob("*.pth")])
    # A folder often holds the same weights in half precision beside the full ones.
    plain = [file for file in found if ".fp16." not in file.name and ".non_ema." not in file.name] or found
    if len(plain) != 1:
        names = ", ".join(file.name for file in plain) or "none"
        raise UserError(
            f"{path}: found {names}; expected one checkpoint (.safetensors, {INDEX} or .pth). Name the file itself."
        )
    return plain[0]


def _shards(index: pathlib.Path) -> dict[str | None, pathlib.Path]:
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        raise UserError(f"{index}: is no index of shards ({error}); fetch it again.") from error
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise UserError(f"{index}: names {len(missing)} files that are not there: {', '.join(missing)}; fetch them.")
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
                f"{path}: {name} is of {dtype}, which NumPy does not know; expected floats of 16 bits or more. "
                "Quantised weights cannot be converted; fetch the full ones."
            ) from error

    return Tensors(path, shapes, read)


@dataclasses.dataclass(frozen=True)
class _Stored:
    """A tensor of a ``.pth``: where its numbers lie in the archive."""

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
            f"{path}: cannot be read as a PyTorch checkpoint ({error}); expected a file of torch.save that is whole."
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
    """Knows tensors and containers, and refuses every other name."""

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
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of a list of tensors")
