"""How well views are baked back into the texture they came from, and how long it takes: ``python -m benchmarks.baking``.

Ten procedural meshes with a known texture each (``benchmarks/textured.py``), and with ``--assets a.glb,b.glb`` files whose own
base colours are the truth, rendered by rays from four sides, or from six with top and bottom, and baked. Prints for each:

    seen            PSNR in dB of the texture where it is seen, against the original
    filled          the same where it was filled: a guess, and labelled as one
    novel, seen     PSNR of renders from two angles that were not baked, of pixels that show nothing but what was seen
    novel, all      the same over the whole object, filled parts included
    coverage        part of the surface's area that is seen; two: that two views or more see
    seams           mean difference between what the two sides of seams say of the same place, as a part of that between
                    neighbouring texels; of truth: that of the original texture
    edge            mean difference between neighbours of which one is seen and one filled, as the same part
    CPU s           processor seconds of one bake with compiled programs

The procedural textures have waves down to ``--texels-per-wave`` texels of a texture that covers one unit. Then come the times
of what a user waits for, and the figures that others publish (``benchmarks/peers.py``).
"""

import time
from collections.abc import Iterator

import numpy as np
import rich.console
import rich.table
from absl import flags

from benchmarks import ground_truth, peers, textured
from benchmarks.ground_truth import BACKGROUND, GroundTruth
from realiz3d_jax import errors, startup
from realiz3d_jax.geometry import render
from realiz3d_jax.geometry.cameras import STANDARD, orbit
from realiz3d_jax.geometry.textured_views import render_colors
from realiz3d_jax.geometry.texturing import baking

_SIZE = flags.DEFINE_integer("size", 2048, "Texels along a side of the texture.")
_PIXELS = flags.DEFINE_integer("pixels", 2048, "Pixels along a side of a view.")
_SAMPLES = flags.DEFINE_integer("samples", 2, "Rays along a side of a pixel.")
_FACES = flags.DEFINE_integer("faces", 50_000, "Faces of a procedural mesh, about.")
_TEXELS_PER_WAVE = flags.DEFINE_float("texels_per_wave", 16.0, "Length of the procedural textures' shortest waves.")
_MESHES = flags.DEFINE_list("meshes", list(textured.NAMES), "Which procedural meshes; none if empty.")
_ASSETS = flags.DEFINE_list("assets", [], "Files of textured assets.")
_TIMED_PIXELS = flags.DEFINE_integer("timed_pixels", 512, "Pixels along a side of a view where time is taken.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "How often time is taken, after a first time that compiles.")

CAMERAS = (*STANDARD, orbit(0, 90), orbit(0, -90))
NOVEL = (orbit(50, 25), orbit(205, -20))
COLUMNS = (
    *("mesh", "faces", "views", "seen", "filled", "novel, seen", "novel, all", "coverage", "two", "seams"),
    *("of truth", "edge", "CPU s"),
)
GOALS = {"maps": 0.8, "bake": 8.0}
"""Seconds that the steps may take on two cores."""


def main(argv: list[str]) -> None:
    """The benchmark."""
    del argv
    startup.start()
    console = rich.console.Console(width=128)
    table = rich.table.Table(title=f"textures of {_SIZE.value}, views of {_PIXELS.value}")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "mesh" else "right")
    for truth in _truths():
        for row in _measure(truth):
            table.add_row(*row)
            console.print(" | ".join(row))
    for printed in (table, _times(), peers.table()):
        console.print(printed)


def _truths() -> Iterator[GroundTruth]:
    for name in filter(None, _MESHES.value):
        yield ground_truth.procedural(name, _FACES.value, _SIZE.value, _TEXELS_PER_WAVE.value)
    for path in _ASSETS.value:
        yield ground_truth.of_asset(path, _SIZE.value)


def _measure(truth: GroundTruth) -> list[tuple[str, ...]]:
    """A row for four views and one for six."""
    samples, half = _SAMPLES.value, _PIXELS.value // 2
    views, _ = render_colors(truth.mesh, truth.colors, _PIXELS.value, CAMERAS, samples, BACKGROUND)
    novel, _ = render_colors(truth.mesh, truth.colors, half, NOVEL, samples, BACKGROUND)
    rows = []
    for count in (4, 6):
        options = baking.BakeOptions(size=_SIZE.value)
        start = time.process_time()
        baked = baking.bake(truth.mesh, truth.uv, views[:count], CAMERAS[:count], options)
        seconds = time.process_time() - start
        figures = ground_truth.compare(truth, baked, NOVEL, novel, samples)
        decibels = (figures.seen, figures.filled, figures.novel_seen, figures.novel)
        rows.append(
            (
                *(truth.name, f"{len(truth.mesh.faces):,}", str(count)),
                *(_number(value, 1) for value in decibels),
                *(f"{baked.coverage:.3f}", f"{baked.overlap:.3f}"),
                *(_number(value, 2) for value in (figures.seams, figures.seams_truth, figures.edge)),
                f"{seconds:.1f}",
            )
        )
    return rows


def _number(value: float, digits: int) -> str:
    return "-" if np.isnan(value) else f"{value:.{digits}f}"


def _times() -> rich.table.Table:
    """Seconds of the maps of four views, and of a bake of four views, again after everything is compiled."""
    known = textured.make("concave bowl", _FACES.value)
    pixels, size = _TIMED_PIXELS.value, _SIZE.value
    views = np.random.default_rng(0).integers(0, 256, (4, pixels, pixels, 3)).astype(np.uint8)
    title = (
        f"{len(known.mesh.faces):,} faces with texture coordinates, four views of {pixels}, {_REPEATS.value} repeats"
    )
    table = rich.table.Table(title=title)
    for column in ("step", "first, s", "median, s", "least to most, s", "CPU, s", "goal, s"):
        table.add_column(column, justify="left" if column == "step" else "right")
    steps = {
        "maps": lambda: render.render_maps(known.mesh, pixels),
        "bake": lambda: baking.bake(known.mesh, known.uv, views, options=baking.BakeOptions(size=size)),
    }
    for name, step in steps.items():
        walls, processors = [], []
        for _ in range(1 + _REPEATS.value):
            wall, processor = time.perf_counter(), time.process_time()
            step()
            walls.append(time.perf_counter() - wall)
            processors.append(time.process_time() - processor)
        again = walls[1:]
        table.add_row(
            f"{name}, {size} texels" if name == "bake" else name,
            *(f"{walls[0]:.2f}", f"{np.median(again):.2f}", f"{min(again):.2f} to {max(again):.2f}"),
            *(f"{np.median(processors[1:]):.2f}", f"{GOALS[name]:.1f}"),
        )
    return table


if __name__ == "__main__":
    errors.run(main)
