"""Making the shapes datasets on all cores, so that what is killed can be taken up again.

Objects are rendered in chunks, each into a file of its own below ``DIRECTORY/.prepare``; a chunk that is there is not
rendered again. When all are there, the dataset is written from them in one go and the chunks are removed. A record
depends on the seed, its split and its number only, so an interrupted and resumed dataset has the same bytes.
"""

import concurrent.futures
import contextlib
import io
import itertools
import json
import multiprocessing
import operator
import os
import pathlib
import shutil
import threading
import time
from collections.abc import Callable, Iterable

import numpy as np

from realiz3d_jax import files, progress
from realiz3d_jax.data import records
from realiz3d_jax.data.shapes import builders, examples, objects
from realiz3d_jax.errors import UserError

CHUNK = 64
"""Items of a chunk: a second or two of work, and a whole number of grids."""

_PATIENCE = 0.5
"""Seconds between two looks at what other hosts have done."""

DEFAULT_COUNT = {"shapes_photos": 8000, "shapes_assets": 1500}
"""Objects of the training split."""

HELD_OUT_COUNT = {"validation": 20, "test": 40}
"""Objects of shapes_assets' other splits."""

_MAKERS = {"shapes_photos": examples.photo_example, "shapes_assets": examples.asset_example}


def prepare(
    directory: str | os.PathLike[str],
    dataset: str,
    size: int = 32,
    count: int | None = None,
    seed: int = objects.SEED,
    workers: int | None = None,
) -> tuple[pathlib.Path, bool]:
    """Makes a dataset of rendered objects, or takes up where an interrupted call stopped.

    Args:
      directory: where datasets are kept.
      dataset: "shapes_photos" or "shapes_assets".
      size: pixels along a side of a view, one of ``records.SIZES``.
      count: objects of the training split; None for the usual number, or whatever a finished dataset has.
      seed: of the objects.
      workers: processes; None for one per core.

    Returns:
      (the dataset's folder, whether it was made now and not there before).

    Raises:
      UserError: a dataset with another count or seed is there, another process is making it, the directory is not
        writable, or an argument is out of range.
    """
    if size not in records.SIZES:
        raise UserError(f"size {size}: expected one of {', '.join(map(str, records.SIZES))} pixels.")
    if count is not None and count < 1:
        raise UserError(f"count {count}: expected at least 1 object.")
    path = records.dataset_path(directory, dataset, size)
    if path.is_dir() and count is None:
        count = json.loads((path / "metadata.json").read_text()).get("count")
    request = {"count": count or DEFAULT_COUNT[dataset], "seed": seed}
    sizes = {"train": request["count"]} | (HELD_OUT_COUNT if dataset == "shapes_assets" else {})

    def fill(missing: list[Chunk], advance: Callable[..., None]) -> None:
        _render(dataset, size, seed, missing, workers or os.cpu_count() or 1, advance)

    return make(directory, dataset, size, request, sizes, fill)


def make(
    directory: str | os.PathLike[str],
    dataset: str,
    size: int,
    request: dict,
    splits: dict[str, int],
    fill: Callable[[list["Chunk"], Callable[..., None]], None],
    *,
    chunk: int | None = None,
    host: int = 0,
    hosts: int = 1,
) -> tuple[pathlib.Path, bool]:
    """Makes any dataset chunk by chunk, so that an interrupted call is resumed, or finds that it is there.

    Several hosts that share the directory each fill every ``hosts``-th chunk; the first one waits for all and writes the
    dataset, the others wait for that.

    Args:
      directory, dataset, size: as for ``prepare``.
      request: what the content follows from, JSON values; stored as metadata, and another request's chunks are not used.
      splits: the number of items of each split.
      fill: makes the chunks it is given, by ``save_chunk``, and calls ``advance(items)`` after each.
      chunk: items of a chunk, ``CHUNK`` by default.
      host, hosts: which of how many hosts this is.

    Returns and raises: as ``prepare`` does.
    """
    path = records.dataset_path(directory, dataset, size)
    if path.is_dir():
        _check_same(path, request)
        return path, False
    work = files.writable_directory(pathlib.Path(directory) / ".prepare" / f"{dataset}-{size}-{records.VERSION}")
    busy = f"{work}: another process is making this dataset; wait for it, or choose another --directory."
    with files.only_one(work / f"lock{host or ''}", busy):
        if host:
            _wait_for(lambda: path.is_dir() or _asked(work) == request)
        else:
            _start_or_resume(work, request)
        chunks = {split: _chunks(work, split, number, chunk or CHUNK) for split, number in splits.items()}
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
        _write(directory, dataset, size, chunks, request)
        shutil.rmtree(work)
    with contextlib.suppress(OSError):
        work.parent.rmdir()
    return path, True


def _check_same(path: pathlib.Path, request: dict) -> None:
    metadata = json.loads((path / "metadata.json").read_text())
    for name, asked in request.items():
        if metadata.get(name) != asked:
            raise UserError(
                f"{path}: a dataset with {name} {metadata.get(name)} is there; asked for was {asked}. "
                "Remove that folder, or choose another --directory."
            )


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
        return {name: value for name, value in values.items() if name != "count"}

    before = _asked(work)
    if before is not None and content(before) != content(request):
        for chunk in work.glob("*.npz"):
            chunk.unlink()
    files.write_text(work / "request.json", json.dumps(request))


Chunk = tuple[str, int, int, pathlib.Path]
"""split, first number, end, file"""


def _chunks(work: pathlib.Path, split: str, number: int, size: int) -> list[Chunk]:
    bounds = [(start, min(start + size, number)) for start in range(0, number, size)]
    return [(split, start, stop, work / f"{split}-{start:06d}-{stop:06d}.npz") for start, stop in bounds]


def _render(
    dataset: str, size: int, seed: int, missing: list[Chunk], workers: int, advance: Callable[..., None]
) -> None:
    """Renders chunks, in processes of their own if there are several of both."""
    if workers == 1 or len(missing) <= 1:
        for chunk in missing:
            advance(_render_chunk(dataset, size, seed, chunk))
        return
    pool = concurrent.futures.ProcessPoolExecutor(
        min(workers, len(missing)), multiprocessing.get_context("spawn"), _end_with_parent
    )
    try:
        waiting = [pool.submit(_render_chunk, dataset, size, seed, chunk) for chunk in missing]
        for future in concurrent.futures.as_completed(waiting):
            advance(future.result())
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Ends this worker when the process that started it is gone: after kill -9 nobody else would."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _render_chunk(dataset: str, size: int, seed: int, chunk: Chunk) -> int:
    """Renders a chunk into its file, and returns how many objects it has."""
    split, start, stop, _ = chunk
    save_chunk(chunk, [_MAKERS[dataset](split, index, size, seed) for index in range(start, stop)])
    return stop - start


def save_chunk(chunk: Chunk, items: list[tuple[examples.Example, dict[str, bytes]]]) -> None:
    """Writes the items of a chunk, in order: each an example and the files that go with it."""
    arrays = {}
    for index, (example, attached) in enumerate(items, start=chunk[1]):
        arrays |= {f"{index}/example/{name}": np.asarray(value) for name, value in example.items()}
        arrays |= {f"{index}/file/{name}": np.frombuffer(content, np.uint8) for name, content in attached.items()}
    content = io.BytesIO()
    np.savez(content, **arrays)
    files.write_bytes(chunk[3], content.getvalue())


def _write(directory, dataset: str, size: int, chunks: dict[str, list[Chunk]], request: dict) -> None:
    """Writes the dataset from its chunks."""
    total = sum(stop - start for group in chunks.values() for _, start, stop, _ in group)
    with progress.bar(f"writing {dataset}", total) as advance:

        def source(group: list[Chunk]) -> Iterable[tuple[examples.Example, dict[str, bytes]]]:
            for chunk in group:
                for item in _read_chunk(chunk):
                    yield item
                    advance()

        sources = {split: (lambda group=group: source(group)) for split, group in chunks.items()}
        builders.write(directory, dataset, size, sources, request)


def _read_chunk(chunk: Chunk) -> Iterable[tuple[examples.Example, dict[str, bytes]]]:
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
