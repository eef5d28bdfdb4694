"""Makes a dataset chunk by chunk, so that an interrupted call can be resumed and hosts can share the work.

Each chunk is a file below ``DIRECTORY/.prepare``; existing chunks are not made again. When all chunks exist, the dataset is
written from them in one pass and they are removed. Where an item depends only on its number and the request, an interrupted
and resumed dataset therefore has the same bytes.
"""

import contextlib
import dataclasses
import io
import itertools
import json
import operator
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from realiz3d_jax import files, progress
from realiz3d_jax.data import records
from realiz3d_jax.data.records import Example
from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.cameras import STANDARD_RIG, Rig
from realiz3d_jax.preparation import builders

LOOSE = ("count", "assets")
"""Keys of a request that select the items without changing their content."""

CHUNK = 64
"""Items per chunk: a second or two of work, and a whole number of grids."""

_SKIPPED = "skipped"
"""Key under which the file of a chunk without items stores the reason."""

_LARGE_ITEM = 1 << 20
"""Bytes per item above which a chunk is compressed; 512-pixel views shrink to a tenth, at a cost of 0.2 s."""

_PATIENCE = 0.5
"""Seconds between two checks of the other hosts' progress."""


def make(
    directory: str | os.PathLike[str],
    dataset: str,
    size: int,
    request: dict,
    splits: dict[str, int],
    fill: Callable[[list["Chunk"], Callable[..., None]], None],
    *,
    rig: Rig | None = STANDARD_RIG,
    without: Sequence[str] = (),
    chunk: int | None = None,
    names: dict[str, list[str]] | None = None,
    left_out: Sequence[tuple[str, str]] = (),
    host: int = 0,
    hosts: int = 1,
) -> tuple[pathlib.Path, bool]:
    """Makes a dataset chunk by chunk, resuming an interrupted call, or returns the dataset that already exists.

    Hosts that share the directory each fill every ``hosts``-th chunk. The first host waits for all chunks and writes the
    dataset; the others wait for the dataset.

    Args:
      directory: root folder of the datasets.
      dataset: name of the dataset.
      size: pixels along a side of a view, one of ``records.SIZES``.
      request: JSON values that determine the content; stored as metadata. Chunks of another request are reused only if the
        requests differ in ``LOOSE`` keys alone.
      splits: number of items of each split.
      fill: makes the given chunks with ``save_chunk``, and calls ``advance(items)`` after each.
      rig: cameras shared by all records; None if each record has its own, then ``request["views"]`` gives their number.
      without: features of ``records.SCHEMAS`` that the examples lack.
      chunk: items per chunk, ``CHUNK`` by default.
      names: names of the items of each split if each item is its own chunk; a name encodes everything the item depends on.
      left_out: (item, reason) pairs already known to be unusable; recorded in the metadata under ``skipped``.
      host, hosts: index of this host and number of hosts.

    Returns:
      (the dataset's folder, True if it was made by this call and False if it already existed).

    Raises:
      UserError: a dataset of another request exists, another process is making this one, the directory is not writable, or
        ``size`` is not valid.
    """
    request = as_stored(request, rig)
    path = records.dataset_path(directory, dataset, size)
    if is_there(path, request):
        return path, False
    work = files.writable_directory(pathlib.Path(directory) / ".prepare" / f"{dataset}-{size}-{records.VERSION}")
    busy = f"{work}: another process is making this dataset; wait for it, or choose another --directory."
    with files.only_one(work / f"lock{host or ''}", busy):
        if host:
            _wait_for(lambda: path.is_dir() or _asked(work) == request)
        else:
            _start_or_resume(work, request)
        chunks = _named_chunks(work, names) if names else _chunks(work, splits, chunk or CHUNK)
        every = [part for group in chunks.values() for part in group]
        mine = every[host::hosts]
        missing = [part for part in mine if not part[3].is_file()]
        total, left = (sum(stop - start for _, start, stop, _ in group) for group in (mine, missing))
        with progress.bar(f"making {dataset}", total, total - left) as advance:
            fill(missing, advance)
        if host:
            _wait_for(path.is_dir)
            return path, True
        _wait_for(lambda: all(part[3].is_file() for part in every))
        _write(directory, dataset, size, chunks, request, without, left_out)
        shutil.rmtree(work)
    with contextlib.suppress(OSError):
        work.parent.rmdir()
    return path, True


def as_stored(request: dict, rig: Rig | None) -> dict:
    """Returns a request together with its rig, in the form in which a dataset's metadata is read back."""
    return json.loads(json.dumps({"rig": rig and dataclasses.asdict(rig), **request}))


def is_there(path: pathlib.Path, request: dict) -> bool:
    """Returns whether the folder holds a dataset made from this request.

    Args:
      path: folder of the dataset.
      request: as returned by ``as_stored``.

    Raises:
      UserError: the folder holds a dataset of another request, or its size is not valid.
    """
    if path.parent.name not in map(str, records.SIZES):
        raise UserError(f"size {path.parent.name}: expected one of {', '.join(map(str, records.SIZES))} pixels.")
    if not path.is_dir():
        return False
    metadata = json.loads((path / "metadata.json").read_text())
    for name, asked in request.items():
        if metadata.get(name) != asked:
            raise UserError(
                f"{path}: already holds a dataset with {name}={metadata.get(name)}, but {name}={asked} was requested. "
                "Remove that folder, or choose another --directory."
            )
    return True


def _wait_for(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(_PATIENCE)


def _asked(work: pathlib.Path) -> dict | None:
    """Returns the request whose chunks are in ``work``, or None."""
    path = work / "request.json"
    return json.loads(path.read_text()) if path.is_file() else None


def _start_or_resume(work: pathlib.Path, request: dict) -> None:
    """Keeps the chunks of an interrupted call whose request differs in ``LOOSE`` keys at most; removes all others."""

    def content(values: dict) -> dict:
        return {name: value for name, value in values.items() if name not in LOOSE}

    before = _asked(work)
    if before is not None and content(before) != content(request):
        for chunk in work.glob("*.npz"):
            chunk.unlink()
    files.write_text(work / "request.json", json.dumps(request))


Chunk = tuple[str, int, int, pathlib.Path]
"""(split, first index, end index, file)"""


def _chunks(work: pathlib.Path, splits: dict[str, int], size: int) -> dict[str, list[Chunk]]:
    """Returns the chunks of each split, of ``size`` items each; ``splits`` gives the number of items."""
    bounds = {
        split: [(start, min(start + size, number)) for start in range(0, number, size)]
        for split, number in splits.items()
    }
    return {
        split: [(split, start, stop, work / f"{split}-{start:06d}-{stop:06d}.npz") for start, stop in parts]
        for split, parts in bounds.items()
    }


def _named_chunks(work: pathlib.Path, names: dict[str, list[str]]) -> dict[str, list[Chunk]]:
    """Returns the chunks of each split, of one item each."""
    return {
        split: [(split, index, index + 1, work / f"{split}-{name}.npz") for index, name in enumerate(group)]
        for split, group in names.items()
    }


def save_chunk(
    chunk: Chunk, items: list[tuple[Example, dict[str, bytes]]], skipped: tuple[str, str] | None = None
) -> None:
    """Writes the items of a chunk, in order.

    Args:
      chunk: chunk to write.
      items: (example, attached files by path) of each item; empty if the chunk's single item cannot be made.
      skipped: (item, reason) of an item that cannot be made; recorded in the dataset's metadata under ``skipped``.
    """
    arrays = {_SKIPPED: np.asarray(skipped)} if skipped else {}
    for index, (example, attached) in enumerate(items, start=chunk[1]):
        arrays |= {f"{index}/example/{name}": np.asarray(value) for name, value in example.items()}
        arrays |= {f"{index}/file/{name}": np.frombuffer(content, np.uint8) for name, content in attached.items()}
    content = io.BytesIO()
    large = sum(array.nbytes for array in arrays.values()) > _LARGE_ITEM * len(items)
    (np.savez_compressed if large else np.savez)(content, **arrays)
    files.write_bytes(chunk[3], content.getvalue())


def _write(
    directory: str | os.PathLike[str],
    dataset: str,
    size: int,
    chunks: dict[str, list[Chunk]],
    request: dict,
    without: Sequence[str],
    left_out: Sequence[tuple[str, str]],
) -> None:
    """Writes the dataset from its chunks.

    Raises:
      UserError: the training split has no item.
    """
    chunks_before, (chunks, skipped) = chunks, _without_skipped(chunks)
    skipped = [{"item": item, "reason": reason} for item, reason in left_out] + skipped
    if skipped:
        request = {**request, "skipped": skipped}
    if not chunks.get("train"):
        for group in chunks_before.values():
            for chunk in group:
                chunk[3].unlink()  # so that the next call retries them
        listed = "".join(f"\n  {one['item']}: {one['reason']}" for one in skipped[:20])
        raise UserError(f"{dataset}: no item could be made, so there is nothing to train on.{listed}")
    total = sum(stop - start for group in chunks.values() for _, start, stop, _ in group)
    with progress.bar(f"writing {dataset}", total) as advance:

        def source(group: list[Chunk]) -> Iterable[tuple[Example, dict[str, bytes]]]:
            for chunk in group:
                for item in _read_chunk(chunk):
                    yield item
                    advance()

        sources = {split: (lambda group=group: source(group)) for split, group in chunks.items()}
        builders.write(directory, dataset, size, sources, request, without=without)


def _without_skipped(chunks: dict[str, list[Chunk]]) -> tuple[dict[str, list[Chunk]], list[dict[str, str]]]:
    """Returns the chunks that have items, by split, and the skipped items as {"item", "reason"}."""
    kept: dict[str, list[Chunk]] = {}
    skipped = []
    for split, group in chunks.items():
        for chunk in group:
            with np.load(chunk[3]) as arrays:
                if _SKIPPED in arrays.files:
                    skipped.append(dict(zip(("item", "reason"), arrays[_SKIPPED].tolist(), strict=True)))
                else:
                    kept.setdefault(split, []).append(chunk)
    return kept, skipped


def _read_chunk(chunk: Chunk) -> Iterable[tuple[Example, dict[str, bytes]]]:
    """Yields the examples of a chunk and their attached files, in order."""
    with np.load(chunk[3]) as arrays:
        keys = (key.split("/", 2) for key in arrays.files)
        for number, group in itertools.groupby(keys, key=operator.itemgetter(0)):
            example, attached = {}, {}
            for _, kind, name in group:
                value = arrays[f"{number}/{kind}/{name}"]
                if kind == "file":
                    attached[name] = value.tobytes()
                else:
                    example[name] = value if value.ndim else value.item()
            yield example, attached
