"""Makes the pictures of these pages: ``python -m docs.pictures``, in the root of the repository, in half a minute.

What they show is one object of ``benchmarks/textured.py``, painted in stripes, written as a file and read again like any asset:
its record is that of ``prepare --assets``, its texture that of ``bake``.
"""

import dataclasses
import io
import itertools
import pathlib
import tempfile

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from benchmarks import textured
from realiz3d_jax import startup
from realiz3d_jax.data import records
from realiz3d_jax.geometry.assets.asset import Asset, load_asset, parse_glb
from realiz3d_jax.geometry.assets.gltf_writer import write_textured_glb
from realiz3d_jax.geometry.cameras import STANDARD, Camera, orbit
from realiz3d_jax.geometry.mesh import Part, write_glb
from realiz3d_jax.geometry.textured_views import render_colors, texture_colors
from realiz3d_jax.geometry.texturing.baking import BakeOptions, bake
from realiz3d_jax.geometry.texturing.texels import rasterise
from realiz3d_jax.preparation.assets.listing import Entry
from realiz3d_jax.preparation.assets.rendering import RenderConfig, render_example
from realiz3d_jax.views import AZIMUTHS, VIEW_WORDS

HERE = pathlib.Path(__file__).parent
INK, FAINT, UNSEEN = "#222222", "#8a8a8a", 0.86
AXES = dict(zip("XYZ", zip(("#c63d2f", "#2e8b3d", "#2f5fc6"), np.eye(3), strict=True), strict=True))
VIEW_COLORS = ("#b5540a", "#0b6e8f", "#6b3fa0", "#4a7a1e")
NEW_VIEW = (40, 25)
"""Azimuth and elevation of the view that was not baked."""

_TEXELS, _PIXELS = 1024, 512
_USED = 0.8
"""Of the texture's height: the rest of it holds no chart."""


def main() -> None:
    """Makes all pictures."""
    startup.start()
    plt.rcParams.update({"font.size": 8.5, "text.color": INK, "axes.titlesize": 9, "axes.titlecolor": INK})
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "toys.glb"
        path.write_bytes(painted("several parts", 6000))
        asset = load_asset(path)
        record = render_example(Entry("toys", path, "a striped ball on a block, beside a ring"), 256, RenderConfig())
    pictures = {"frame": frame_picture(asset), "record": record_picture(record), "baking": baking_picture(asset)}
    for name, picture in pictures.items():
        path, content = HERE / f"{name}.png", io.BytesIO()
        picture.savefig(content, dpi=150 if name == "record" else 200, facecolor="white")
        image = Image.open(content).convert("RGB")
        if name != "record":  # whose colours are too many for a palette
            image = image.quantize(256, Image.Quantize.MAXCOVERAGE)
        image.save(path, optimize=True)
        print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


def painted(name: str, faces: int) -> bytes:
    """A GLB of one of ``textured.NAMES``, in its own texture coordinates, striped."""
    known = textured.make(name, faces)
    corners, normals = known.mesh.vertices[known.mesh.faces], known.mesh.corner_normals
    faces_of = np.arange(3 * len(corners)).reshape(-1, 3)
    part = Part(corners.reshape(-1, 3), faces_of, normals.reshape(-1, 3), (0.8, 0.8, 0.8))
    asset = dataclasses.replace(parse_glb(write_glb([part]), name), uv=known.uv.astype(np.float32))
    texels = rasterise(known.uv, 2 * _TEXELS)
    places = np.einsum("nc,ncd->nd", texels.barycentric, corners[texels.face])
    column, row = np.floor(5 * known.uv.mean(axis=1)).astype(int).T
    piece = np.digitize(5 * row + column, (6, 12))[texels.face]
    image = np.full((texels.size**2, 3), 128, np.uint8)
    image[texels.index] = np.round(255 * stripes(places, piece))
    return write_textured_glb(asset, image.reshape(texels.size, texels.size, 3))


def stripes(places: np.ndarray, piece: np.ndarray) -> np.ndarray:
    """sRGB float[n, 3] at places float[n, 3] of pieces int[n] of "several parts": 0 the ball, 1 the block, 2 the ring."""
    x, y, z = places.T
    angle = np.arctan2(z + 0.1, x - 0.32) / (2 * np.pi)
    turns = np.choose(piece, [11 * z + 2.8 * x, 8 * x - 5 * y + 4 * z, 12 * angle])
    share = 0.5 + 0.5 * np.tanh(6 * np.sin(2 * np.pi * turns))
    light = np.array([[0.98, 0.86, 0.62], [0.80, 0.88, 0.95], [0.86, 0.93, 0.74]])[piece]
    dark = np.array([[0.85, 0.36, 0.16], [0.20, 0.38, 0.62], [0.25, 0.55, 0.30]])[piece]
    return light + share[:, None] * (dark - light)


# --- the frame and the cameras ------------------------------------------------------------------------------------------


def frame_picture(asset: Asset) -> Figure:
    """The world and the four cameras from above, in perspective, and the grid that their views make."""
    figure = plt.figure(figsize=(9, 3.5))
    above, beside = figure.add_axes((0.005, 0.02, 0.32, 0.88)), figure.add_axes((0.335, 0.02, 0.345, 0.88))
    _draw_world(above, asset, orbit(0, 90, width=4.8))
    _draw_world(beside, asset, orbit(28, 33, fov=32, distance=8.0))
    views, _ = render_colors(asset.mesh, asset.base_color, 256, STANDARD, 3)
    for number, view in enumerate(views):
        row, column = divmod(number, 2)
        axes = figure.add_axes((0.7 + 0.145 * column, 0.5 - 0.385 * row, 0.14, 0.36))
        _show(axes, view, f"view {number}: {AZIMUTHS[number]}°, {VIEW_WORDS[number]}", VIEW_COLORS[number])
        axes.title.set_fontsize(7.5)
    titles = {0.165: "From above", 0.5025: "In perspective", 0.8425: "The grid, row by row"}
    for place, title in titles.items():
        figure.text(place, 0.945, title, ha="center", weight="bold")
    figure.text(0.8425, 0.045, "row 0 is the top; a view is 1.1 units wide", ha="center", color=FAINT, size=7.5)
    return figure


def _draw_world(axes: Axes, asset: Asset, viewer: Camera) -> None:
    """The object, the axes and the four cameras as another camera sees them."""
    size, above = 1000, not viewer.perspective
    image, cover = render_colors(asset.mesh, asset.base_color, size, [viewer], 2)
    axes.imshow(np.dstack([image[0] / 255, cover[0]]), extent=(0, size, size, 0), zorder=3)

    def pixels(*points) -> np.ndarray:
        return viewer.project(np.array(points, float), size)[0]

    def line(start, stop, order: float, **style) -> None:
        axes.plot(*pixels(start, stop).T, zorder=order, **style)

    def arrow(start, stop, order: float, color: str, width: float) -> None:
        style = {"arrowstyle": "-|>", "color": color, "lw": width, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", *pixels(stop, start), arrowprops=style, zorder=order)

    def word(place, text: str, color: str, **style) -> None:
        halo = [patheffects.withStroke(linewidth=2.5, foreground="white")]
        style = {"ha": "center", "va": "center", "weight": "bold", "zorder": 6, "path_effects": halo} | style
        axes.text(*pixels(place)[0], text, color=color, **style)

    for step in np.linspace(-2, 2, 9):
        line([step, -2, -0.5], [step, 2, -0.5], 0, color="#e6e6e6", lw=0.7)
        line([-2, step, -0.5], [2, step, -0.5], 0, color="#e6e6e6", lw=0.7)
    corners = [np.array(corner) for corner in itertools.product((-0.5, 0.5), repeat=3)]
    for one, other in itertools.combinations(corners, 2):
        if (one != other).sum() == 1:
            line(one, other, 1, color=FAINT, lw=0.6)
    for name, (color, direction) in itertools.islice(AXES.items(), 2 if above else 3):
        arrow(0.5 * direction, 0.95 * direction, 5, color, 1.6)
        word(1.12 * direction, f"+{name}", color)
    for number, (camera, color) in enumerate(zip(STANDARD, VIEW_COLORS, strict=True)):
        (right, up, backward), middle, half = camera.axes, camera.center, camera.width / 2
        order = 4 if middle @ viewer.backward > 0 else 1.5
        frame = [middle + half * (x * right + y * up) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
        axes.fill(*pixels(*frame).T, facecolor=(1, 1, 1, 0.55), edgecolor=color, lw=3 if above else 1.6, zorder=order)
        arrow(middle, middle - 0.7 * backward, order, color, 1.1)
        if above:
            for end in frame[:2]:
                line(end, end - 1.45 * backward, 1, color=color, lw=0.7, ls=(0, (4, 3)), alpha=0.7)
            text = f"azimuth {AZIMUTHS[number]}°, {VIEW_WORDS[number]}"
            word(1.12 * middle, text, color, rotation=AZIMUTHS[number] % 180)
        else:
            word(middle + np.array([0, 0, 0.8]), f"{AZIMUTHS[number]}°", color)
    if above:
        turn = np.deg2rad(np.linspace(-66, -24, 30))
        arc = 1.75 * np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=-1)
        axes.plot(*pixels(*arc).T, color=INK, lw=1)
        arrow(arc[-2], arc[-1], 4, INK, 1)
        word([1.75, -1.6, 0], "azimuths\ncount up", INK, size=7.5, weight="normal")
    axes.set(xlim=(0, size), ylim=(size, 0), aspect="equal")
    axes.axis("off")


# --- a record ----------------------------------------------------------------------------------------------------------


def record_picture(record: records.Example) -> Figure:
    """What a record holds of its four views."""
    depth = np.where(record["mask"] > 0, record["depth"], np.nan)
    rows = {
        "synthetic": record["synthetic"],
        "normal": record["normal"] / 65535,
        "position": record["position"] / 65535,
    }
    rows |= {"depth": depth, "mask": record["mask"] * 255}
    stored = ("uint8, sRGB", "uint16, n / 2 + 0.5", "uint16, p + 0.5", "float32, world units", "uint8, 0 or 1")
    figure, grid = plt.subplots(5, 4, figsize=(7, 6.95), gridspec_kw={"wspace": 0.04, "hspace": 0.04})
    figure.subplots_adjust(0.175, 0.01, 0.9, 0.96)
    for row, (name, views) in enumerate(rows.items()):
        for view, axes in enumerate(grid[row]):
            title = f"{AZIMUTHS[view]}°, {VIEW_WORDS[view]}" if row == 0 else ""
            shown = _show(axes, views[view], title, vmin=np.nanmin(depth), vmax=np.nanmax(depth))
        place = grid[row, 0].get_position()
        middle = (place.y0 + place.y1) / 2
        figure.text(0.162, middle + 0.007, name, ha="right", weight="bold", size=9.5)
        figure.text(0.162, middle - 0.012, stored[row], ha="right", color=FAINT, size=7.5)
        if name == "depth":
            bar = figure.colorbar(shown, cax=figure.add_axes((0.915, place.y0 + 0.01, 0.014, place.height - 0.02)))
            bar.outline.set_visible(False)
            bar.ax.tick_params(labelsize=7, length=2)
    return figure


# --- a bake -------------------------------------------------------------------------------------------------------------


def baking_picture(asset: Asset) -> Figure:
    """From views to a new view of the baked asset."""
    views, _ = render_colors(asset.mesh, asset.base_color, _PIXELS, STANDARD, 3)
    options = BakeOptions(size=_TEXELS)
    baked = bake(asset.mesh, asset.uv, views, STANDARD, options)
    alone = [bake(asset.mesh, asset.uv, views[i : i + 1], STANDARD[i : i + 1], options).seen for i in range(4)]
    inside = baked.seen | baked.filled
    seen = np.where(baked.seen[..., None], baked.texture / 255, np.where(inside[..., None], UNSEEN, 1.0))
    grey = np.where(baked.filled[..., None], 217, baked.texture).astype(np.uint8)
    colors = (asset.base_color, *(texture_colors(asset.uv, texture) for texture in (baked.texture, grey)))
    truth, new, marked = (render_colors(asset.mesh, color, _PIXELS, [orbit(*NEW_VIEW)], 3)[0][0] for color in colors)
    error = np.abs(new.astype(float) - truth).mean(axis=-1)
    figure, grid = plt.subplots(3, 4, figsize=(9, 7.6), height_ratios=(1, 0.82, 1))
    figure.subplots_adjust(0.01, 0.012, 0.99, 0.915, wspace=0.05, hspace=0.45)
    for number, view in enumerate(views):
        _show(grid[0, number], view, f"view_{AZIMUTHS[number]:03d}.png")
    rows = int(_USED * _TEXELS)
    colors = (str(UNSEEN), "#7fb8da", "#1f5f9e")
    shown = _show(grid[1, 0], np.where(inside, np.sum(alone, axis=0), np.nan)[:rows], "views that see a texel")
    shown.set(cmap=ListedColormap(colors), norm=BoundaryNorm([-0.5, 0.5, 1.5, 2.5], 3))
    key = [Patch(color=color, label=label) for color, label in zip(colors, ("none", "one", "two"), strict=True)]
    grid[1, 0].legend(handles=key, loc="upper center", bbox_to_anchor=(0.5, -0.01), ncol=3, frameon=False, fontsize=7.5)
    _show(grid[1, 1], seen[:rows], f"seen: {baked.coverage:.0%} of the surface")
    _show(grid[1, 2], np.where(inside[..., None], baked.texture, 255)[:rows], "the rest filled over the surface")
    _show(grid[1, 3], baked.texture[:rows], "the texture, with its gutters")
    _show(grid[2, 0], new, "azimuth {}°, elevation {}°".format(*NEW_VIEW))
    _show(grid[2, 1], marked, "grey: what no view saw")
    _show(grid[2, 2], truth, "the truth")
    _show(grid[2, 3], 255 - np.clip(error * 2, 0, 255), "difference, twice enlarged", vmin=0, vmax=255).set(cmap="gray")
    for row, heading in enumerate(("Four views", "The texture", "A view that was not baked")):
        figure.text(0.01, grid[row, 1].get_position().y1 + 0.038, heading, weight="bold", size=10)
    return figure


def _show(axes: Axes, image: np.ndarray, title: str = "", color: str = INK, **limits):
    """An image with a thin frame, without ticks."""
    palette = "viridis" if image.dtype.kind == "f" else "gray"
    shown = axes.imshow(image, interpolation="antialiased", cmap=palette, **limits)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, color=color, pad=3)
    for side in axes.spines.values():
        side.set(color="#d5d5d5", linewidth=0.6)
    return shown


if __name__ == "__main__":
    main()
