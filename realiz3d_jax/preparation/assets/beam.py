"""Renders a dataset of assets on a cluster with Apache Beam, an optional dependency.

The records equal those of ``rendering.prepare``: unusable assets are left out with their reasons, each batch of assets is
rendered in a process that may crash, and a bundle that Beam retries gives the same records. The workers must see the assets
and the data directory under the same paths as this process.
"""

import functools
import os
import pathlib
import shutil
from collections.abc import Iterable, Sequence
from typing import Any

from realiz3d_jax import files
from realiz3d_jax.data import records
from realiz3d_jax.data.records import Example
from realiz3d_jax.errors import UserError
from realiz3d_jax.preparation import builders, making, workers
from realiz3d_jax.preparation.assets import rendering
from realiz3d_jax.preparation.assets.listing import ListedAsset, Skipped
from realiz3d_jax.preparation.assets.rendering import RenderConfig

_BATCH = 8
"""Assets that a process renders before it is replaced."""


def prepare(
    directory: str | os.PathLike[str],
    collection: str,
    entries: list[ListedAsset],
    size: int,
    config: RenderConfig,
    options: Sequence[str],
    left_out: Sequence[Skipped] = (),
) -> tuple[pathlib.Path, bool]:
    """Renders assets into the dataset "assets" of a collection with a Beam pipeline.

    Args:
      directory, collection, entries, size, config, left_out: as for ``rendering.prepare``, which also documents what is
        returned and raised.
      options: pipeline options in Beam's command-line syntax, such as "--runner=DataflowRunner".
    """
    try:
        import apache_beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise UserError("--beam: Apache Beam is not installed; pip install -r requirements-beam.txt") from error
    config.check()
    dataset = records.dataset_name(collection, "assets")
    path = records.dataset_path(directory, dataset, size)
    splits = rendering.split_entries(entries, config)
    names = rendering.names_of(splits, {entry.uid: rendering.digest(entry, config, size) for entry in entries})
    settings = {"samples": config.samples}
    request = making.as_stored(rendering.request_of(names, config) | settings, config.rig)
    if making.is_there(path, request):
        return path, False
    work = files.writable_directory(pathlib.Path(directory) / ".prepare" / f"{dataset}-{size}-beam")
    busy = f"{work}: another process is making this dataset; wait for it, or choose another --directory."
    with files.only_one(work / "lock", busy):
        for reason in work.glob("*.reason"):  # left by an interrupted call
            reason.unlink()
        known = [{"item": one.asset, "reason": one.reason} for one in left_out]
        render = functools.partial(_render_batch, size=size, config=config, work=work)

        def finish() -> dict[str, Any]:
            skipped = known + _skipped(work)
            return {"skipped": skipped} if skipped else {}

        def write(splits: dict[str, list[ListedAsset]]) -> None:
            sources = {
                split: apache_beam.Create(list(enumerate(group)))
                | f"Spread {split}" >> apache_beam.Reshuffle()
                | f"Batch {split}" >> apache_beam.BatchElements(min_batch_size=_BATCH, max_batch_size=_BATCH)
                | f"Render {split}" >> apache_beam.FlatMap(render)
                for split, group in splits.items()
            }
            pipeline = PipelineOptions(list(options))
            builders.write(
                directory,
                dataset,
                size,
                sources,
                request,
                without=rendering.WITHOUT,
                beam_options=pipeline,
                finish=finish,
            )

        try:
            write(splits)
        except Exception as error:
            if "should be >0" not in str(error):  # TFDS's error for a split without examples, wrapped by the runner
                raise
            usable = {
                split: group for split, group in splits.items() if not all(map(functools.partial(_lost, work), group))
            }
            if "train" not in usable:
                listed = "".join(f"\n  {one['item']}: {one['reason']}" for one in _skipped(work)[:20])
                raise UserError(
                    f"{dataset}: no item could be made, so there is nothing to train on.{listed}"
                ) from error
            write(usable)  # renders again: a split that turns out empty cannot be dropped during the run
        shutil.rmtree(work)
    return path, True


def _render_batch(
    batch: list[tuple[int, ListedAsset]], size: int, config: RenderConfig, work: pathlib.Path
) -> Iterable[tuple[int, Example]]:
    """Yields (number, record) of the usable assets of a batch; writes the reasons of the others to ``work``."""
    numbers = {entry.uid: number for number, entry in batch}
    render = functools.partial(rendering.render_example, size=size, config=config)
    attempt = functools.partial(rendering.record_or_reason, example=render)
    for entry, found in workers.run(attempt, [entry for _, entry in batch], 1, config.seconds):
        reason = found.reason if isinstance(found, workers.Lost) else found
        if isinstance(reason, str):
            files.write_text(_reason_file(work, entry), f"{entry.path}\n{reason}")
        else:
            yield numbers[entry.uid], found


def _reason_file(work: pathlib.Path, entry: ListedAsset) -> pathlib.Path:
    return work / f"{entry.uid}.reason"


def _lost(work: pathlib.Path, entry: ListedAsset) -> bool:
    return _reason_file(work, entry).exists()


def _skipped(work: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the assets that were left out as {"item", "reason"}, ordered by uid."""
    lines = [path.read_text().split("\n", 1) for path in sorted(work.glob("*.reason"))]
    return [{"item": item, "reason": reason} for item, reason in lines]
