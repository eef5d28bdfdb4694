"""How well views are baked back into the texture they were rendered from: ``python -m benchmarks.baking``.

Ten procedural meshes with a known texture each (``benchmarks/textured.py``), rendered by rays from four sides, or from six
with top and bottom, and baked. Prints for each:

    seen            PSNR in dB of the texture where it is seen, against the original
    filled          the same where it was filled: a guess, and told as such
    novel, seen     PSNR of renders from two angles that were not baked, where the texture is seen there
    novel, all      the same over the whole object, filled parts included
    coverage        part of the surface's area that is seen; two: that two views or more see
    seams           difference between what two charts say of their common border, in levels of 255, as a part of the
                    difference between neighbouring texels within charts; of the original: that of its own texture
    CPU s           processor seconds of one bake with compiled programs

The texture has waves down to ``--texels-per-wave`` texels of a texture that covers one unit; the last table times the parts
that a user waits for.
"""

import time

import numpy as np
import rich.console
import rich.table
from absl import flags

from benchmarks import textured
from realiz3d_jax import errors
from realiz3d_jax.geometry import baking, render
from realiz3d_jax.geometry.cameras import STANDARD, orbit
from realiz3d_jax.metrics import image
from realiz3d_jax.training import platform

_SIZE = flags.DEFINE_integer("size", 2048, "Texels along a side of the texture.")
_PIXELS = flags.DEFINE_integer("pixels", 2048, "Pixels along a side of a view.")
_FACES = flags.DEFINE_integer("faces", 50_000, "Faces of a mesh, about.")
_TEXELS_PER_WAVE = flags.DEFINE_float("texels_per_wave", 16.0, "Length of the texture's shortest waves.")
_MESHES = flags.DEFINE_list("meshes", list(textured.NAMES), "Which meshes.")
_TIMED_PIXELS = flags.DEFINE_integer("timed_pixels", 512, "Pixels along a side of a view where time is taken.")

CAMERAS = (*STANDARD, orbit(0, 90), orbit(0, -90))
NOVEL = (orbit(50, 25), orbit(205, -20))
COLUMNS = (
    *("mesh", "faces", "views", "seen", "filled", "novel, seen", "novel, all", "coverage", "two", "seams"),
    *("of the original", "CPU s"),
)


def main(argv: list[str]) -> None:
    """The benchmark."""
    del argv
    platform.start()
    console = rich.console.Console(width=128)
    table = rich.table.Table(title=f"textures of {_SIZE.value}, views of {_PIXELS.value}")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "mesh" else "right")
    for name in _MESHES.value:
        for row in _measure(name):
            table.add_row(*row)
            console.print(" | ".join(row))
    console.print(table)
    console.print(_times())


def _measure(name: str) -> list[tuple[str, ...]]:
    """A row for four views and one for six."""
    known = textured.make(name, _FACES.value)
    texture = known.texture(_SIZE.value, _SIZE.value / _TEXELS_PER_WAVE.value)
    views = np.stack([textured.render(known, texture, _PIXELS.value, camera)[0] for camera in CAMERAS])
    novel = [textured.render(known, texture, _PIXELS.value // 2, camera) for camera in NOVEL]
    before, mask, texel = (np.stack(arrays) for arrays in zip(*novel, strict=True))
    rows = []
    for count in (4, 6):
        start = time.process_time()
        options = baking.BakeOptions(size=_SIZE.value)
        baked = baking.bake(known.mesh, known.uv, views[:count], CAMERAS[:count], options)
        seconds = time.process_time() - start
        after = np.stack([textured.render(known, baked.texture, _PIXELS.value // 2, camera)[0] for camera in NOVEL])
        there = mask & baked.seen[texel[..., 0], texel[..., 1]]
        seams = textured.seam_difference(known, baked.texture, baked.seen)
        original = textured.seam_difference(known, texture, baked.seen)
        step = textured.step_difference(texture, baked.seen)
        filled = f"{image.psnr(texture, baked.texture, baked.filled):.1f}" if baked.filled.any() else "-"
        rows.append(
            (
                *(name, f"{len(known.mesh.faces):,}", str(count)),
                *(f"{image.psnr(texture, baked.texture, baked.seen):.1f}", filled),
                *(f"{image.psnr(before, after, where):.1f}" for where in (there, mask)),
                *(f"{baked.coverage:.3f}", f"{baked.overlap:.3f}"),
                *(f"{seams / step:.2f}", f"{original / step:.2f}", f"{seconds:.1f}"),
            )
        )
    return rows


def _times() -> rich.table.Table:
    """Seconds of the maps of four views, and of a bake of four views, each once more after everything is compiled."""
    known = textured.make("concave bowl", _FACES.value)
    pixels = _TIMED_PIXELS.value
    views = np.random.default_rng(0).integers(0, 256, (4, pixels, pixels, 3)).astype(np.uint8)
    table = rich.table.Table(title=f"{len(known.mesh.faces):,} faces, four views of {pixels}")
    for column in ("step", "first, s", "again, s", "again, CPU s"):
        table.add_column(column, justify="left" if column == "step" else "right")
    steps = {
        "maps": lambda: render.render_maps(known.mesh, pixels),
        f"bake, {_SIZE.value} texels": lambda: baking.bake(
            known.mesh, known.uv, views, options=baking.BakeOptions(size=_SIZE.value)
        ),
    }
    for name, step in steps.items():
        walls, processors = [], []
        for _ in range(3):
            wall, processor = time.perf_counter(), time.process_time()
            step()
            walls.append(time.perf_counter() - wall)
            processors.append(time.process_time() - processor)
        table.add_row(name, f"{walls[0]:.2f}", f"{min(walls[1:]):.2f}", f"{min(processors[1:]):.2f}")
    return table


if __name__ == "__main__":
    errors.run(main)
