"""Training data from a team's own assets: renders in uniform light, geometry maps and captions, made on all cores.

An asset that cannot be read or rendered is left out, and the dataset's metadata says why; it costs no other. Each asset is
rendered into a file of its own first, named by a checksum of all that its record follows from. So an interrupted call goes on
where it was, and renders anew only what has changed since.
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from realiz3d_jax.data import geometry_maps, records
from realiz3d_jax.data.records import Example
from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.assets.asset import load_asset
from realiz3d_jax.geometry.cameras import STANDARD_RIG, Rig
from realiz3d_jax.geometry.render import render_maps
from realiz3d_jax.geometry.textured_views import render_colors
from realiz3d_jax.preparation import making, workers
from realiz3d_jax.preparation.assets.listing import ListedAsset, Skipped, plain_name
from realiz3d_jax.preparation.making import Chunk

WITHOUT = ("real", "cameras")
"""The features of the kind "assets" that renders of assets do not have."""


@dataclasses.dataclass(frozen=True)
class RenderConfig:
    """How assets are rendered.

    Attributes:
      rig: the cameras.
      samples: rays along a side of a pixel, of the colours.
      validation, test: the parts of the assets that are held out, from 0; which they are follows from their uids.
      seconds: that one asset may take.
    """

    rig: Rig = STANDARD_RIG
    samples: int = 3
    validation: float = 0.02
    test: float = 0.02
    seconds: float = 300.0

    def check(self) -> None:
        """Raises UserError unless every value is in its range."""
        self.rig.cameras()
        checks = {
            "samples": (self.samples, 1 <= self.samples <= 16, "1 to 16"),
            "validation": (self.validation, self.validation >= 0, "at least 0"),
            "test": (self.test, self.test >= 0 and self.validation + self.test < 1, "below 1 together with validation"),
            "seconds": (self.seconds, self.seconds > 0, "more than 0"),
        }
        for name, (found, holds, expected) in checks.items():
            if not holds:
                raise UserError(f"config.{name}: found {found!r}, expected {expected}.")


def render_example(entry: ListedAsset, size: int, config: RenderConfig) -> Example:
    """The record of an asset.

    Raises:
      UserError: it cannot be used.
    """
    asset, cameras = load_asset(entry.path, entry.up), config.rig.cameras()
    color, _ = render_colors(asset.mesh, asset.base_color, size, cameras, config.samples)
    maps = render_maps(asset.mesh, size, cameras, asset.visible)
    if not maps.mask.any():
        raise UserError(f"{entry.path}: nothing of it is seen in any view; its surface is transparent, or too thin.")
    depth = np.stack([camera.project(seen, size)[1] for camera, seen in zip(cameras, maps.position, strict=True)])
    return {
        "uid": entry.uid,
        "caption": entry.caption_or_name(),
        "mesh": str(entry.path),
        "up": entry.up or "",
        "synthetic": color,
        "depth": np.where(maps.mask, depth, 0).astype(np.float32),
        **dataclasses.asdict(geometry_maps.stored(maps)),
    }


def split_of(uid: str, config: RenderConfig) -> str:
    """The split of an asset: it follows from the uid alone, so a growing collection never mixes its splits."""
    place = zlib.crc32(uid.encode()) / 2**32
    if place < config.validation:
        return "validation"
    return "test" if place < config.validation + config.test else "train"


def prepare(
    directory: str | os.PathLike[str],
    collection: str,
    entries: list[ListedAsset],
    size: int,
    config: RenderConfig,
    processes: int | None = None,
    left_out: Sequence[Skipped] = (),
) -> tuple[pathlib.Path, bool]:
    """Renders assets into the dataset "assets" of a collection, or takes up where an interrupted call stopped.

    Args:
      directory: where datasets are kept.
      collection: what the datasets of these assets are called.
      entries: the assets.
      size: pixels along a side of a view, one of ``records.SIZES``.
      config: how they are rendered.
      processes: that render; None for one per core.
      left_out: what is not among the entries, for the metadata.

    Returns:
      (the dataset's folder, whether it was made now and not there before). Its metadata has ``skipped``, a list of "item" and
      "reason", if any asset was.

    Raises:
      UserError: as ``making.make``; or no asset can be used.
    """
    render = functools.partial(render_example, size=size, config=config)
    digests = {entry.uid: digest(entry, config, size) for entry in entries}
    settings = {"samples": config.samples}
    known = [(one.asset, one.reason) for one in left_out]
    return make_each(
        directory,
        collection,
        entries,
        digests,
        render,
        size,
        config,
        settings,
        processes,
        without=WITHOUT,
        left_out=known,
    )


def make_each(
    directory: str | os.PathLike[str],
    collection: str,
    entries: Sequence[Any],
    digests: dict[str, str],
    example: Callable[[Any], Example],
    size: int,
    config: RenderConfig,
    settings: dict[str, Any],
    processes: int | None,
    **options: Any,
) -> tuple[pathlib.Path, bool]:
    """Makes the dataset "assets" of a collection, each object in a process that it costs alone if it fails.

    Args:
      entries: objects with ``uid`` and ``path``.
      digests: of what each one's record follows from, by uid.
      example: makes the record of an entry, and raises UserError if it cannot; picklable.
      settings: JSON values that all records follow from.
      options: of ``making.make``.
      directory, collection, size, config, processes: as for ``prepare``, which says what is returned and raised.
    """
    config.check()
    splits = split_entries(entries, config)
    names = names_of(splits, digests)

    def fill(missing: list[Chunk], advance: Callable[..., None]) -> None:
        tasks = [(splits[split][index], (split, index, stop, path)) for split, index, stop, path in missing]
        count = min(processes or os.cpu_count() or 1, max(len(tasks), 1))
        for (entry, chunk), lost in workers.run(functools.partial(_save, example), tasks, count, config.seconds):
            if isinstance(lost, workers.Lost):
                making.save_chunk(chunk, [], (str(entry.path), lost.reason))
            advance(1, entry.uid)

    request = request_of(names, config) | settings
    counts = {split: len(group) for split, group in splits.items()}
    dataset = records.dataset_name(collection, "assets")
    return making.make(directory, dataset, size, request, counts, fill, **{"rig": config.rig, "names": names} | options)


def names_of(splits: dict[str, list[Any]], digests: dict[str, str]) -> dict[str, list[str]]:
    """What the chunks of each split are called: by the object, and all that its record follows from."""
    return {
        split: [f"{plain_name(entry.uid)}-{digests[entry.uid]}" for entry in group] for split, group in splits.items()
    }


def request_of(names: dict[str, list[str]], config: RenderConfig) -> dict[str, Any]:
    """What a dataset's metadata says of the objects that it was made of."""
    return {
        "count": sum(map(len, names.values())),
        "assets": hashlib.sha256(json.dumps(names).encode()).hexdigest(),
        "held_out": [config.validation, config.test],
    }


def split_entries(entries: Sequence[Any], config: RenderConfig) -> dict[str, list[Any]]:
    """The assets of each split that has any, by their ``uid``; all train if none would."""
    splits: dict[str, list[Any]] = {}
    for entry in entries:
        splits.setdefault(split_of(entry.uid, config), []).append(entry)
    return splits if "train" in splits else {"train": list(entries)}


def digest(entry: ListedAsset, config: RenderConfig, size: int) -> str:
    """Of what a record follows from: the file by its time and size, as make does."""
    state = entry.path.stat() if entry.path.exists() else None
    file = [state.st_mtime_ns, state.st_size] if state else None
    drawn = [dataclasses.asdict(config.rig), config.samples, size]
    return digest_of([str(entry.path), file, entry.caption_or_name(), entry.up, drawn])


def digest_of(values: Any) -> str:
    """A checksum of JSON values that fits into a file's name."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:12]


def record_or_reason(entry: Any, example: Callable[[Any], Example]) -> Example | str:
    """The record of an entry, or why it has none."""
    try:
        return example(entry)
    except UserError as error:
        return str(error).removeprefix(f"{entry.path}: ")
    except Exception as error:  # what no file should be able to cause must not cost the other objects
        return f"cannot be used ({type(error).__name__}: {error})"


def _save(example: Callable[[Any], Example], task: tuple[Any, Chunk]) -> None:
    """Makes an object's chunk, or says there why there is none."""
    entry, chunk = task
    found = record_or_reason(entry, example)
    if isinstance(found, str):
        making.save_chunk(chunk, [], (str(entry.path), found))
    else:
        making.save_chunk(chunk, [(found, {})])
