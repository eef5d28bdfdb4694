"""How fast assets become training data: ``python -m benchmarks.rendering [--assets FOLDER] [--size 512]``.

First the record of each asset by itself, in one process, in its parts: reading, colours (one and more rays a pixel), maps. Then
the whole command's way, all assets in a dataset, with one process and with one per core, in turns; medians and spread. Without
``--assets`` it takes objects of the shapes benchmark.
"""

import dataclasses
import os
import pathlib
import tempfile
import time

import numpy as np
import rich.console
import rich.table
from absl import flags

from realiz3d_jax import errors, startup
from realiz3d_jax.geometry.assets.asset import load_asset
from realiz3d_jax.geometry.mesh import write_glb
from realiz3d_jax.geometry.render import render_maps
from realiz3d_jax.geometry.textured_views import render_colors
from realiz3d_jax.preparation.assets import rendering
from realiz3d_jax.preparation.assets.listing import Entry, list_assets
from realiz3d_jax.preparation.assets.rendering import RenderConfig
from realiz3d_jax.preparation.shapes import objects

_ASSETS = flags.DEFINE_string("assets", None, "A folder of assets, or a manifest.")
_SIZE = flags.DEFINE_integer("size", 512, "Pixels along a side of a view.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Of each measurement.", lower_bound=1)
_OBJECTS = flags.DEFINE_integer(
    "objects", 16, "Records of the whole way; assets are taken again until there are so many."
)

CONFIG = RenderConfig(validation=0.0, test=0.0)


def main(argv: list[str]) -> None:
    """The command."""
    del argv
    startup.start()
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        entries = _entries(place)
        console = rich.console.Console(width=140)
        console.print(_parts(entries))
        console.print(_whole(place, entries))


def _entries(folder: pathlib.Path) -> list[Entry]:
    if _ASSETS.value:
        return list_assets(_ASSETS.value)[0]
    entries = []
    for index in range(4):
        item = objects.make_object("train", index, objects.SEED)
        path = folder / f"{item.uid}.glb"
        path.write_bytes(write_glb(item.parts))
        entries.append(Entry(item.uid, path, item.caption))
    return entries


def _parts(entries: list[Entry]) -> rich.table.Table:
    samples, cameras = CONFIG.samples, CONFIG.rig.cameras()
    table = rich.table.Table(title=f"four views of {_SIZE.value} pixels, seconds: median (least to most)")
    for column in ("asset", "faces", "reading", "colours, 1 ray", f"colours, {samples**2} rays", "maps", "record"):
        table.add_column(column, justify="left" if column == "asset" else "right")
    for entry in entries:
        asset = load_asset(entry.path, entry.up)
        steps = [
            lambda entry=entry: load_asset(entry.path, entry.up),
            lambda asset=asset: render_colors(asset.mesh, asset.base_color, _SIZE.value, cameras, 1),
            lambda asset=asset: render_colors(asset.mesh, asset.base_color, _SIZE.value, cameras, samples),
            lambda asset=asset: render_maps(asset.mesh, _SIZE.value, cameras, asset.visible),
            lambda entry=entry: rendering.render_example(entry, _SIZE.value, CONFIG),
        ]
        table.add_row(
            entry.uid,
            f"{len(asset.mesh.faces):,}",
            *(_told([_timed(step) for _ in range(_REPEATS.value)]) for step in steps),
        )
    return table


def _whole(folder: pathlib.Path, entries: list[Entry]) -> rich.table.Table:
    count = max(_OBJECTS.value, len(entries))
    many = [
        dataclasses.replace(entries[index % len(entries)], uid=f"{entries[index % len(entries)].uid}_{index}")
        for index in range(count)
    ]
    cores = os.cpu_count() or 1
    rates: dict[int, list[float]] = {1: [], cores: []}
    for repeat in range(_REPEATS.value):
        for processes, found in rates.items():
            directory = folder / f"{processes}-{repeat}"
            seconds = _timed(
                lambda directory=directory, processes=processes: rendering.prepare(
                    directory, "benchmark", many, _SIZE.value, CONFIG, processes
                )
            )
            found.append(60 * count / seconds)
    table = rich.table.Table(title=f"{count} records, from files to dataset: objects a minute, median (least to most)")
    table.add_column("processes", justify="right")
    table.add_column("objects a minute", justify="right")
    for processes, found in rates.items():
        table.add_row(str(processes), _told(found))
    return table


def _timed(step) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _told(values: list[float]) -> str:
    digits = 1 if min(values) >= 10 else 2
    return f"{np.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    errors.run(main)
