"""Makes the shapes datasets on all cores; a record depends only on the seed, its split and its index."""

import concurrent.futures
import json
import multiprocessing
import os
import pathlib
from collections.abc import Callable

from realiz3d_jax.data import records
from realiz3d_jax.errors import UserError
from realiz3d_jax.preparation import making
from realiz3d_jax.preparation.making import Chunk
from realiz3d_jax.preparation.shapes import examples, objects
from realiz3d_jax.preparation.workers import end_with_parent

DEFAULT_COUNT = {"shapes_photos": 8000, "shapes_assets": 1500}
"""Number of objects in the training split."""

HELD_OUT_COUNT = {"validation": 20, "test": 40}
"""Number of objects in the other splits of shapes_assets."""

_MAKERS = {"shapes_photos": examples.photo_example, "shapes_assets": examples.asset_example}


def prepare(
    directory: str | os.PathLike[str],
    dataset: str,
    size: int = 32,
    count: int | None = None,
    seed: int = objects.SEED,
    workers: int | None = None,
) -> tuple[pathlib.Path, bool]:
    """Makes a dataset of rendered objects, resuming an interrupted call.

    Args:
      directory: root folder of the datasets.
      dataset: "shapes_photos" or "shapes_assets".
      size: pixels along a side of a view, one of ``records.SIZES``.
      count: objects in the training split; None for the count of an existing dataset, or otherwise ``DEFAULT_COUNT``.
      seed: seed of the objects.
      workers: number of processes; None for one per core.

    Returns:
      (the dataset's folder, True if it was made by this call and False if it already existed).

    Raises:
      UserError: a dataset with another count or seed exists, another process is making it, the directory is not writable,
        or an argument is out of range.
    """
    if count is not None and count < 1:
        raise UserError(f"count {count}: expected at least 1 object.")
    path = records.dataset_path(directory, dataset, size)
    if path.is_dir() and count is None:
        count = json.loads((path / "metadata.json").read_text()).get("count")
    request = {"count": count or DEFAULT_COUNT[dataset], "seed": seed}
    sizes = {"train": request["count"]} | (HELD_OUT_COUNT if dataset == "shapes_assets" else {})

    def fill(missing: list[Chunk], advance: Callable[..., None]) -> None:
        _render(dataset, size, seed, missing, workers or os.cpu_count() or 1, advance)

    return making.make(directory, dataset, size, request, sizes, fill, without=("up", "depth", "cameras"))


def _render(
    dataset: str, size: int, seed: int, missing: list[Chunk], workers: int, advance: Callable[..., None]
) -> None:
    """Renders chunks, in worker processes if there are several chunks and workers."""
    if workers == 1 or len(missing) <= 1:
        for chunk in missing:
            advance(_render_chunk(dataset, size, seed, chunk))
        return
    pool = concurrent.futures.ProcessPoolExecutor(
        min(workers, len(missing)), multiprocessing.get_context("spawn"), end_with_parent
    )
    try:
        waiting = [pool.submit(_render_chunk, dataset, size, seed, chunk) for chunk in missing]
        for future in concurrent.futures.as_completed(waiting):
            advance(future.result())
    finally:
        pool.shutdown(cancel_futures=True)


def _render_chunk(dataset: str, size: int, seed: int, chunk: Chunk) -> int:
    """Renders a chunk into its file and returns its number of objects."""
    split, start, stop, _ = chunk
    making.save_chunk(chunk, [_MAKERS[dataset](split, index, size, seed) for index in range(start, stop)])
    return stop - start
