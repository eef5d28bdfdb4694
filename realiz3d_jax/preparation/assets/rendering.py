"""Makes training data from a team's own assets on all cores: renders in uniform light, geometry maps and captions.

An asset that cannot be read or rendered is left out without affecting others; the dataset's metadata records the reason. Each
asset is first rendered into its own file, named by a checksum of everything its record depends on. An interrupted call thus
resumes where it stopped, and only changed assets are rendered again.
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
"""Features of the kind "assets" that renders of assets lack."""


@dataclasses.dataclass(frozen=True)
class RenderConfig:
    """Settings for rendering assets.

    Attributes:
      rig: the cameras.
      samples: colour rays along a side of a pixel, 1 to 16.
      validation, test: held-out fractions of the assets, at least 0; an asset's split depends on its uid alone.
      seconds: time limit for one asset.
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
    """Renders the record of an asset.

    Args:
      entry: the asset.
      size: pixels along a side of a view.
      config: render settings.

    Raises:
      UserError: the asset cannot be used.
    """
    asset, cameras = load_asset(entry.path, entry.up), config.rig.cameras()
    color, _ = render_colors(asset.mesh, asset.base_color, size, cameras, config.samples)
    maps = render_maps(asset.mesh, size, cameras, asset.visible)
    if not maps.mask.any():
        raise UserError(f"{entry.path}: is not visible in any view; its surface is transparent, or too thin.")
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
    """Returns the split of an asset; it depends on the uid alone, so a growing collection never mixes its splits."""
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
    """Renders assets into the dataset "assets" of a collection, resuming an interrupted call.

    Args:
      directory: root folder of the datasets.
      collection: name of the collection.
      entries: the assets.
      size: pixels along a side of a view, one of ``records.SIZES``.
      config: render settings.
      processes: number of render processes; None for one per core.
      left_out: assets already known to be unusable; recorded in the metadata under ``skipped``.

    Returns:
      (the dataset's folder, True if it was made by this call and False if it already existed). If assets were left out, the
      metadata's ``skipped`` lists each "item" and "reason".

    Raises:
      UserError: as ``making.make``, or no asset can be used.
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
    """Makes the dataset "assets" of a collection, each object in a process whose failure affects no other object.

    Args:
      directory, collection, size, config, processes: as for ``prepare``, which also documents what is returned and raised.
      entries: objects with ``uid`` and ``path``.
      digests: by uid, a checksum of everything the object's record depends on.
      example: picklable; makes the record of an entry, or raises UserError.
      settings: JSON values on which all records depend.
      options: further arguments of ``making.make``.
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
    """Returns the chunk names of each split, built from the objects' uids and digests."""
    return {
        split: [f"{plain_name(entry.uid)}-{digests[entry.uid]}" for entry in group] for split, group in splits.items()
    }


def request_of(names: dict[str, list[str]], config: RenderConfig) -> dict[str, Any]:
    """Returns the metadata that identifies the objects of a dataset: their count, checksum and held-out fractions."""
    return {
        "count": sum(map(len, names.values())),
        "assets": hashlib.sha256(json.dumps(names).encode()).hexdigest(),
        "held_out": [config.validation, config.test],
    }


def split_entries(entries: Sequence[Any], config: RenderConfig) -> dict[str, list[Any]]:
    """Groups assets by split, from their ``uid``; empty splits are omitted, and all assets train if none would."""
    splits: dict[str, list[Any]] = {}
    for entry in entries:
        splits.setdefault(split_of(entry.uid, config), []).append(entry)
    return splits if "train" in splits else {"train": list(entries)}


def digest(entry: ListedAsset, config: RenderConfig, size: int) -> str:
    """Returns a checksum of everything a record depends on; the file enters by modification time and size, as in make."""
    state = entry.path.stat() if entry.path.exists() else None
    file = [state.st_mtime_ns, state.st_size] if state else None
    drawn = [dataclasses.asdict(config.rig), config.samples, size]
    return digest_of([str(entry.path), file, entry.caption_or_name(), entry.up, drawn])


def digest_of(values: Any) -> str:
    """Returns a checksum of JSON values, 12 hexadecimal digits for use in file names."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:12]


def record_or_reason(entry: Any, example: Callable[[Any], Example]) -> Example | str:
    """Returns the record of an entry, or the reason why it cannot be made."""
    try:
        return example(entry)
    except UserError as error:
        return str(error).removeprefix(f"{entry.path}: ")
    except Exception as error:  # an unexpected error in one object must not stop the others
        return f"cannot be used ({type(error).__name__}: {error})"


def _save(example: Callable[[Any], Example], task: tuple[Any, Chunk]) -> None:
    """Writes an object's chunk, with its record or with the reason why it has none."""
    entry, chunk = task
    found = record_or_reason(entry, example)
    if isinstance(found, str):
        making.save_chunk(chunk, [], (str(entry.path), found))
    else:
        making.save_chunk(chunk, [(found, {})])
