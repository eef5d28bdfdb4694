"""Datasets on disk: schemas of the records, integer encodings of the maps, and access to a split.

A dataset is stored in ``DIRECTORY/NAME/SIZE/VERSION``: ArrayRecord files written by TFDS, its ``dataset_info.json`` and
``features.json``, and a ``metadata.json`` that states ``CONVENTIONS``. Tensors are stored as raw bytes, which decode six times
faster than TFDS' default; ArrayRecord compresses them.
"""

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]  # compiled, no stubs

from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry import cameras

VERSION = "1.1.0"
SIZES = (32, 64, 128, 256, 512)
"""Supported sizes of the datasets, in pixels along a side of a view."""

CONVENTIONS = {
    "world": "Z up, right-handed; glTF (x, y, z) is (x, -z, y)",
    "normals": "world, n / 2 + 0.5, uint16",
    "positions": "world, p + 0.5, uint16",
    "background": "white; 0.5 in normals and positions; 0 in the mask",
}
"""Conventions common to all datasets, so that a model trained on one can read another; deviating datasets are rejected."""

_CAMERA_NUMBERS = 14

SHAPES = "shapes"
"""The collection of the shapes benchmark."""

Example = dict[str, Any]


def features(kind: str, names: Iterable[str], size: int, views: int) -> tfds.features.FeaturesDict:
    """TFDS features of a record. Images are sRGB over white.

    Args:
      kind: a key of ``SCHEMAS``.
      names: features of that kind that the dataset has.
      size: pixels along a side of a view.
      views: V, views of the dataset's rig.
    """
    return tfds.features.FeaturesDict({name: SCHEMAS[kind][name](size, views) for name in names})


def _text(size: int, views: int) -> tfds.features.Text:
    del size, views
    return tfds.features.Text()


def _integer(size: int, views: int) -> tfds.features.Scalar:
    del size, views
    return tfds.features.Scalar(dtype=np.int64)


def _array(*shape: int | None):
    def feature(size: int, views: int) -> tfds.features.Tensor:
        del size, views
        return tfds.features.Tensor(shape=shape, dtype=np.float16, encoding="bytes")

    return feature


def _image(dtype: type, *channels: int):
    def feature(size: int, views: int) -> tfds.features.Tensor:
        del views
        return tfds.features.Tensor(shape=(size, size, *channels), dtype=dtype, encoding="bytes")

    return feature


def _views(dtype: type, *channels: int):
    def feature(size: int, views: int) -> tfds.features.Tensor:
        return tfds.features.Tensor(shape=(views, size, size, *channels), dtype=dtype, encoding="bytes")

    return feature


def _cameras(size: int, views: int) -> tfds.features.Tensor:
    del size
    return tfds.features.Tensor(shape=(views, _CAMERA_NUMBERS), dtype=np.float64, encoding="bytes")


SCHEMAS = {
    "photos": {
        "uid": _text,
        "caption": _text,
        "real": _views(np.uint8, 3),
        "synthetic": _views(np.uint8, 3),
    },
    "assets": {
        "uid": _text,
        "caption": _text,
        "mesh": _text,
        "up": _text,
        "synthetic": _views(np.uint8, 3),
        "real": _views(np.uint8, 3),
        "normal": _views(np.uint16, 3),
        "position": _views(np.uint16, 3),
        "depth": _views(np.float32),
        "mask": _views(np.uint8),
        "cameras": _cameras,
    },
    "generated": {
        "uid": _text,
        "caption": _text,
        "view": _integer,
        "image": _image(np.uint8, 3),
    },
    "assets_encoded": {
        "uid": _text,
        "caption": _text,
        "caption_states": _array(None, None),
        "synthetic": _array(None, None, None, None),
        "control": _array(None, None, None, None),
    },
    "generated_encoded": {
        "uid": _text,
        "caption": _text,
        "caption_states": _array(None, None),
        "view": _integer,
        "image": _array(None, None, None),
    },
}
"""Kinds of datasets and their possible features. A dataset is named COLLECTION_KIND, such as shapes_assets.

* photos: training images of the shapes benchmark's base model.
* assets: renders of synthetic assets. ``mesh`` is a path, absolute or relative to the dataset's folder; ``up`` is the up axis
  of that file, "" for the default of its format. ``real`` holds the ground-truth real renders of the shapes benchmark, for
  evaluation only. Optional are ``normal``, ``position``, ``depth`` (along the camera's axis, world units; 0 in the
  background), and ``cameras`` (``encode_cameras``); cameras that all objects share are in the metadata instead.
* generated: images made by the base model; ``view`` in [0, 4) is the view named in the prompt.
* ..._encoded: see ``data.encoded``.
"""


def dataset_name(collection: str, kind: str) -> str:
    """Name of the dataset of a kind.

    Raises:
      UserError: ``collection`` is not a valid name (lower-case letters, digits, `_`).
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", collection):
        raise UserError(
            f"collection {collection!r}: expected lower-case letters, digits and '_', a letter first, such as my_chairs."
        )
    return f"{collection}_{kind}"


def kind_of(dataset: str) -> str:
    """Kind of a dataset, from its name.

    Raises:
      UserError: the name does not end in a known kind.
    """
    kinds = [kind for kind in SCHEMAS if re.fullmatch(rf"[a-z][a-z0-9_]*_{kind}", dataset)]
    if not kinds:
        raise UserError(f"dataset {dataset!r}: unknown; expected COLLECTION_KIND, KIND one of {', '.join(SCHEMAS)}.")
    return max(kinds, key=len)


def encode_cameras(held: Sequence[cameras.Camera]) -> np.ndarray:
    """Encodes V cameras as float64[V, 14]: axes by rows, centre, width, and 1 for a perspective camera, else 0."""
    return np.stack([[*camera.axes.reshape(-1), *camera.center, camera.width, camera.perspective] for camera in held])


def decode_cameras(stored: np.ndarray) -> tuple[cameras.Camera, ...]:
    """Inverse of ``encode_cameras``."""
    return tuple(
        cameras.Camera(row[:9].reshape(3, 3), row[9:12], float(row[12]), bool(row[13])) for row in np.asarray(stored)
    )


def encode_unit(values: np.ndarray) -> np.ndarray:
    """Encodes float[...] in [0, 1] as uint16[...]."""
    return np.round(np.clip(values, 0.0, 1.0) * 65535).astype(np.uint16)


def encode_normals(normals: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Encodes world-space unit normals float[..., 3] as uint16[..., 3]; 0.5 outside ``mask`` bool[...]."""
    return encode_unit(np.where(mask[..., None], normals / 2 + 0.5, 0.5))


def encode_positions(positions: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Encodes positions float[..., 3] in [-0.5, 0.5] as uint16[..., 3]; 0.5 outside ``mask`` bool[...]."""
    return encode_unit(np.where(mask[..., None], positions + 0.5, 0.5))


def decode_normals(stored: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Inverse of ``encode_normals``: float32[..., 3], 0 in the background."""
    return np.where(mask[..., None].astype(bool), stored.astype(np.float32) / 65535 * 2 - 1, np.float32(0))


def decode_positions(stored: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Inverse of ``encode_positions``: float32[..., 3], 0 in the background."""
    return np.where(mask[..., None].astype(bool), stored.astype(np.float32) / 65535 - 0.5, np.float32(0))


def dataset_path(directory: str | os.PathLike[str], dataset: str, size: int) -> pathlib.Path:
    """Folder of a dataset's current version."""
    return pathlib.Path(directory) / dataset / str(size) / VERSION


def prepare_command(directory: str | os.PathLike[str], dataset: str, size: int) -> str:
    """Shell command that makes a dataset."""
    kind = kind_of(dataset)
    collection = dataset.removesuffix(f"_{kind}")
    what = {
        "assets": "--assets FOLDER",
        "generated": "--self-generate",
        "assets_encoded": "--encode --base pretrained/NAME",
        "generated_encoded": "--encode --base pretrained/NAME",
    }.get(kind)
    if collection == SHAPES:
        what = f"--dataset {dataset}" if kind in ("photos", "assets") else what
    else:
        what = f"{what} --collection {collection}"
    return f"python -m realiz3d_jax.prepare {what} --directory {directory} --size {size}"


class Records(Sequence):
    """A split of a dataset as a sequence of records.

    A record is a dict of numpy arrays (see ``SCHEMAS``), str for texts and int for numbers. Several threads may read at once;
    a pickled copy opens its own files, so several processes may, too.

    Attributes:
      path: the dataset's folder.
      metadata: ``CONVENTIONS``, ``size``, ``rig`` (the fields of ``cameras.Rig``, or None if every record has its own
        cameras), and the sources of the dataset.
      names: features of the records.
    """

    def __init__(self, source: Sequence, path: pathlib.Path, metadata: dict, names: frozenset[str]):
        self._source, self.path, self.metadata, self.names = source, path, metadata, names

    @property
    def views(self) -> int:
        """V, the number of views of a record."""
        rig = self.metadata["rig"]
        return len(rig["azimuths"]) if rig else self.metadata["views"]

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        return {name: _plain(value) for name, value in self._source[range(len(self))[index]].items()}


def open_split(directory: str | os.PathLike[str], dataset: str, split: str, size: int = 32) -> Records:
    """Opens a split for random access.

    Args:
      directory: root of the datasets, the output of ``prepare``.
      dataset: name of the dataset.
      split: "train", or "validation" or "test" if the dataset has them.
      size: pixels along a side of a view.

    Raises:
      UserError: the dataset or the split does not exist or has another version or other conventions, or a record file is
        missing, truncated or broken.
    """
    kind_of(dataset)
    path = dataset_path(directory, dataset, size)
    fix = f"Make it by\n  {prepare_command(directory, dataset, size)}"
    if not path.is_dir():
        others = (
            sorted(other.name for other in path.parent.glob("[0-9]*.[0-9]*.[0-9]*")) if path.parent.is_dir() else []
        )
        if others:
            raise UserError(f"{path.parent}: holds version {', '.join(others)} of {dataset}; expected {VERSION}. {fix}")
        raise UserError(f"{path}: the dataset {dataset} does not exist. {fix}")
    again = f"Remove {path} and make it again by\n  {prepare_command(directory, dataset, size)}"
    try:
        builder: Any = tfds.builder_from_directory(path)  # its decorators hide the signatures
        metadata = json.loads((path / "metadata.json").read_text())
    except Exception as error:  # TFDS defines no exception for files that it cannot parse
        raise UserError(f"{path}: cannot be read as a dataset ({type(error).__name__}: {error}). {again}") from error
    for key, expected in CONVENTIONS.items():
        if metadata.get(key) != expected:
            raise UserError(f"{path / 'metadata.json'}: {key} is {metadata.get(key)!r}; expected {expected!r}. {again}")
    if split not in builder.info.splits:
        raise UserError(f"{path}: no split {split!r}; expected one of {', '.join(sorted(builder.info.splits))}.")
    info = builder.info.splits[split]
    for name, expected in zip(info.filenames, info.shard_lengths, strict=True):
        _check_shard(path / name, expected, again)
    return Records(builder.as_data_source(split=split), path, metadata, frozenset(builder.info.features))


def rig_of(metadata: dict) -> cameras.Rig | None:
    """Rig stated in a dataset's metadata; None if every record has its own cameras."""
    rig = metadata["rig"]
    if not rig:
        return None
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in rig.items()}
    return cameras.Rig(**fields)


def check_views(held: Records, rig: cameras.Rig, names: Iterable[str]) -> None:
    """Checks that a split has the expected views and features.

    Args:
      held: the split.
      rig: expected cameras.
      names: required features.

    Raises:
      UserError: the dataset has another rig or none, or its records lack a feature.
    """
    found, expected = held.metadata["rig"], json.loads(json.dumps(dataclasses.asdict(rig)))
    if found is None:
        raise UserError(
            f"{held.path}: every object has its own cameras, so its views form no grids; expected a dataset with one rig. This "
            "dataset can be used for Stage 1."
        )
    others = [name for name, value in expected.items() if found.get(name) != value]
    if others:
        settings = {name: tuple(found[name]) if isinstance(found[name], list) else found[name] for name in others}
        flags = " ".join(
            f"--config.data.rig.{name}={str(value).replace(' ', '')!r}" for name, value in settings.items()
        )
        raise UserError(
            f"{held.path / 'metadata.json'}: its rig has {', '.join(f'{name} {found[name]}' for name in others)}; expected "
            f"{', '.join(str(expected[name]) for name in others)}, by config.data.rig. To train on these views: {flags}"
        )
    if missing := sorted(set(names) - held.names):
        raise UserError(
            f"{held.path}: its records hold no {', '.join(missing)}, which the task needs; expected one with geometry, or "
            "--config.task=text_to_multiview."
        )


def open_all(directory: str | os.PathLike[str], dataset: str, size: int) -> dict[str, Records]:
    """Opens all splits of a dataset, "train" first; raises as ``open_split`` does."""
    train = open_split(directory, dataset, "train", size)
    others = sorted(set(tfds.builder_from_directory(train.path).info.splits) - {"train"})
    return {"train": train} | {split: open_split(directory, dataset, split, size) for split in others}


def _check_shard(path: pathlib.Path, expected: int, fix: str) -> None:
    """Raises UserError unless the record file exists and its index, at the end of the file, lists ``expected`` records."""
    if not path.is_file():
        raise UserError(f"{path}: this record file is missing. {fix}")
    found, reason = 0, ""
    try:
        reader = array_record_module.ArrayRecordReader(os.fspath(path))
        found = reader.num_records()
        reader.close()  # raises any error from opening
    except RuntimeError as error:
        reason = f" ({error})"
    if found != expected:
        raise UserError(
            f"{path}: {found} readable records in {path.stat().st_size} bytes; expected {expected} records: "
            f"the file is truncated or broken{reason}. {fix}"
        )


def _plain(value):
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray) and value.ndim:
        return value
    return int(value)
