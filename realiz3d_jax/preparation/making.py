"""Making a dataset chunk by chunk, so that what is killed can be taken up again, and hosts can share the work.

A chunk is a file of its own below ``DIRECTORY/.prepare``; one that is there is not made again. When all are there, the dataset
is written from them in one go and the chunks are removed. So where an item depends on nothing but its number and the request,
an interrupted and resumed dataset has the same bytes.
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
"""Of a request: what says which items there are, not what they are."""

CHUNK = 64
"""Items of a chunk: a second or two of work, and a whole number of grids."""

_SKIPPED = "skipped"
"""In the file of a chunk without items: why."""

_LARGE_ITEM = 1 << 20
"""Bytes of an item from which on its chunk is compressed: views of 512 pixels take a tenth then, and a fifth of a second."""

_PATIENCE = 0.5
"""Seconds between two looks at what other hosts have done."""


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
    """Makes any dataset chunk by chunk, so that an interrupted call is resumed, or finds that it is there.

    Several hosts that share the directory each fill every ``hosts``-th chunk; the first one waits for all and writes the
    dataset, the others wait for that.

    Args:
      directory: where datasets are kept.
      dataset: its name.
      size: pixels along a side of a view, one of ``records.SIZES``.
      request: what the content follows from, JSON values; stored as metadata, and another request's chunks are not used,
        unless it differs in ``LOOSE`` alone.
      splits: the number of items of each split.
      rig: the cameras; None if every record has its own, then ``request`` tells how many ``views`` it has.
      without: features of ``records.SCHEMAS`` that the examples do not have.
      fill: makes the chunks it is given, by ``save_chunk``, and calls ``advance(items)`` after each.
      chunk: items of a chunk, ``CHUNK`` by default.
      names: of the items of each split, if each is a chunk of its own; a name tells all that the item follows from.
      left_out: what is known beforehand to be of no use, and why; the metadata tells, beside what is skipped.
      host, hosts: which of how many hosts this is.

    Returns:
      (the dataset's folder, whether it was made now and not there before).

    Raises:
      UserError: a dataset of another request is there, another process is making it, the directory is not writable, or the
        size is none.
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
    """A request with its rig, as a dataset's metadata will be read."""
    return json.loads(json.dumps({"rig": rig and dataclasses.asdict(rig), **request}))


def is_there(path: pathlib.Path, request: dict) -> bool:
    """Whether a dataset that was made of this request lies in its folder.

    Raises:
      UserError: one of another request does, or the size is none.
    """
    if path.parent.name not in map(str, records.SIZES):
        raise UserError(f"size {path.parent.name}: expected one of {', '.join(map(str, records.SIZES))} pixels.")
    if not path.is_dir():
        return False
    metadata = json.loads((path / "metadata.json").read_text())
    for name, asked in request.items():
        if metadata.get(name) != asked:
            raise UserError(
                f"{path}: a dataset with {name} {metadata.get(name)} is there; asked for was {asked}. "
                "Remove that folder, or choose another --directory."
            )
    return True


def _wait_for(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(_PATIENCE)


def _asked(work: pathlib.Path) -> dict | None:
    """The request whose chunks are in ``work``."""
    path = work / "request.json"
    return json.loads(path.read_text()) if path.is_file() else None


def _start_or_resume(work: pathlib.Path, request: dict) -> None:
    """Keeps the chunks of an interrupted call that asked for the same but for their number, removes those of any other."""

    def content(values: dict) -> dict:
        return {name: value for name, value in values.items() if name not in LOOSE}

    before = _asked(work)
    if before is not None and content(before) != content(request):
        for chunk in work.glob("*.npz"):
            chunk.unlink()
    files.write_text(work / "request.json", json.dumps(request))


Chunk = tuple[str, int, int, pathlib.Path]
"""split, first number, end, file"""


def _chunks(work: pathlib.Path, splits: dict[str, int], size: int) -> dict[str, list[Chunk]]:
    """Chunks of ``size`` items, by split, of so many items a split."""
    bounds = {
        split: [(start, min(start + size, number)) for start in range(0, number, size)]
        for split, number in splits.items()
    }
    return {
        split: [(split, start, stop, work / f"{split}-{start:06d}-{stop:06d}.npz") for start, stop in parts]
        for split, parts in bounds.items()
    }


def _named_chunks(work: pathlib.Path, names: dict[str, list[str]]) -> dict[str, list[Chunk]]:
    """Chunks of one item each, by split."""
    return {
        split: [(split, index, index + 1, work / f"{split}-{name}.npz") for index, name in enumerate(group)]
        for split, group in names.items()
    }


def save_chunk(
    chunk: Chunk, items: list[tuple[Example, dict[str, bytes]]], skipped: tuple[str, str] | None = None
) -> None:
    """Writes the items of a chunk, in order: each an example and the files that go with it.

    Args:
      chunk: which one.
      items: none if the chunk's one item cannot be made.
      skipped: what it was made of, and why it cannot be; the dataset's metadata will tell.
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
      UserError: there is no item to train on.
    """
    chunks_before, (chunks, skipped) = chunks, _without_skipped(chunks)
    skipped = [{"item": item, "reason": reason} for item, reason in left_out] + skipped
    if skipped:
        request = {**request, "skipped": skipped}
    if not chunks.get("train"):
        for group in chunks_before.values():
            for chunk in group:
                chunk[3].unlink()  # so that the next call tries again
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
    """The chunks of splits that have any items, and what was skipped: "item" and "reason"."""
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
    """The examples of a chunk and their files, in order."""
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
