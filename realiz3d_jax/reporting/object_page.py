"""The page of one object: its inputs, its views, and its textured mesh as a turntable and in a 3D viewer.

The page needs no network. Without its script and the viewer beside it, the turntable is shown as a strip of frames and the
viewer as its first frame.
"""

import base64
import dataclasses
import hashlib
import html
import pathlib
import shlex
import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry import cameras
from realiz3d_jax.metrics.stored import REFERENCES, StoredMetrics
from realiz3d_jax.reporting import facts, textured
from realiz3d_jax.reporting.images import asset_uri, image_uri
from realiz3d_jax.reporting.inputs import Samples, TrainingRun, read_image
from realiz3d_jax.reporting.page import scores
from realiz3d_jax.reporting.textured import ELEVATION, FIELD_OF_VIEW, Rendering, TexturedMesh
from realiz3d_jax.sampling import items
from realiz3d_jax.sampling.items import Item
from realiz3d_jax.views import AZIMUTHS, VIEW_WORDS, to_views

VIEWER = "model-viewer-umd.min.js"
"""File that must be in the folder of pages with a viewer."""

_HERE = pathlib.Path(__file__).parent
_SMALL = 128
"""Pixels along a side up to which images are scaled without interpolation."""

_CONTROLS = {
    "normal.png": ("Normals", "Input to the model: the direction of the surface."),
    "position.png": ("Positions", "Input to the model: the position of the surface in space."),
    "mask.png": ("Mask", "Input to the model: the pixels of the object."),
}
_TRUTH = {"real": "True real render", "synthetic": "True flat render"}


@dataclasses.dataclass(frozen=True)
class ObjectPage:
    """Contents of the page of one object.

    Attributes:
      uid: the object.
      metrics: the metrics of all objects.
      folders: sampled folders, each of which contains the object.
      runs: training runs shown in the report.
      truth: the benchmark's record of the object, with its true renders; None outside the benchmark.
      report: link to the report.
      before, after: links to the previous and the next page; "" at the ends.
      rendering: render settings of the pictures.
    """

    uid: str
    metrics: StoredMetrics
    folders: Sequence[Samples]
    runs: Sequence[TrainingRun]
    truth: Mapping[str, Any] | None
    report: str
    before: str
    after: str
    rendering: Rendering


def render(page: ObjectPage) -> tuple[str, list[str]]:
    """Renders the page.

    Returns:
      (the HTML, problems of textured meshes to report to the user).

    Raises:
      UserError: an image is missing or damaged.
    """
    caption = page.folders[0].items[page.uid].caption
    assets, problems = _assets(page)
    script = (_HERE / "object_page.js").read_text()
    neighbours = [
        f'<a href="{html.escape(link)}" rel="{relation}">{text}</a>'
        for link, relation, text in ((page.before, "prev", "Previous object"), (page.after, "next", "Next object"))
        if link
    ]
    content = string.Template((_HERE / "object_page.html").read_text()).substitute(
        title=html.escape(f"{caption} – Realiz3D"),
        style=(_HERE / "style.css").read_text(),
        object_style=(_HERE / "object_page.css").read_text(),
        report=html.escape(page.report),
        neighbours="".join(neighbours),
        caption=html.escape(caption),
        uid=html.escape(page.uid),
        facts=facts.of_object(page.folders, page.uid, page.runs),
        views_note=_views_note(page),
        rows=_rows(page),
        textured=assets,
        viewer_script=f'<script src="{VIEWER}"></script>\n' if "<model-viewer" in assets else "",
        script=script,
        script_sum=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    return content, problems


def _views_note(page: ObjectPage) -> str:
    size = page.metrics.size
    return f"Each column is one side of the object; the model draws all four at once, {size} × {size} pixels each."


def _rows(page: ObjectPage) -> str:
    """Returns one row per kind of picture, under the names of the four sides, which are repeated where they change."""
    size = page.metrics.size
    first = page.folders[0].items[page.uid]
    sides = _sides_of(first)
    rows = [_heads(sides)]
    asset, problem = textured.read_shape(first)
    if asset is not None:
        clay = textured.clay_views(asset, first.cameras, page.rendering.still_size)
        rows.append(_row("Input mesh", "Its shape alone; the model receives no colours.", "", clay, sides))
    elif problem:
        rows.append(f'<div class="label"><h3>Input mesh</h3><p>{html.escape(problem)}</p></div>')
    for name, (title, note) in _CONTROLS.items():
        if (first.folder / name).exists():
            rows.append(_row(title, note, "", to_views(read_image(first.folder / name, 2 * size)), sides))
    shown = []
    for samples in page.folders:
        item, note = samples.items[page.uid], scores(page.metrics.objects(samples.row)[page.uid])
        shown.append((samples.title, note, samples.domain, items.read_views(item, size), _sides_of(item)))
    for look in REFERENCES if page.truth is not None else ():
        evaluated = page.metrics.objects(REFERENCES[look]).get(page.uid)
        note = scores(evaluated) if evaluated else ""
        shown.append((_TRUTH[look], note, "reference", page.truth[look], VIEW_WORDS))
    for *row, new in shown:
        rows += [_heads(new)] if new != sides else []
        rows.append(_row(*row, sides := new))
    return "".join(rows)


def _sides_of(item: Item) -> tuple[str, ...]:
    """Returns the names of an item's views, such as "front" and "60°, 20° above"."""
    words = []
    for azimuth, elevation in map(cameras.parse_view_name, item.names):
        side = dict(zip(AZIMUTHS, VIEW_WORDS, strict=True)).get(azimuth, f"{azimuth:g}°")
        above = f", {abs(elevation):g}° {'above' if elevation > 0 else 'below'}" if elevation else ""
        words.append(f"{side}{above}")
    return tuple(words)


def _heads(sides: Sequence[str]) -> str:
    return "".join(f'<div class="head">{word}</div>' for word in ("", *sides))


def _row(title: str, note: str, style: str, views: np.ndarray, sides: Sequence[str]) -> str:
    """Returns a label and its four pictures; ``note`` is HTML."""
    images = []
    for view, word in zip(views, sides, strict=True):
        pixels = ' class="pixels"' if len(view) <= _SMALL else ""
        images.append(f'<img{pixels} src="{image_uri(view)}" alt="{html.escape(title)}, {word}" {_sides(view)}>')
    title = title[:1].upper() + title[1:]
    return f'<div class="label"><h3>{_dot(style)}{html.escape(title)}</h3><p>{note}</p></div>{"".join(images)}'


def _assets(page: ObjectPage) -> tuple[str, list[str]]:
    """Returns the textured meshes of all folders as HTML, and the problems found."""
    sections, problems = [], []
    for samples in page.folders:
        item = samples.items[page.uid]
        path = item.folder / items.TEXTURED
        if not path.exists():
            if item.mesh is not None and not any(camera.perspective for camera in item.cameras):
                sections.append(_missing(samples, item))
            continue
        try:
            mesh = textured.read_textured(path, page.rendering)
        except UserError as error:
            problems.append(str(error))
            sections.append(f'{_title(samples)}<p class="notice">{html.escape(str(error))}</p></section>')
            continue
        sections.append(_asset(samples, page.uid, mesh))
    if not sections:
        return "", problems
    return f"<h2>Textured mesh</h2>{''.join(sections)}", problems


def _title(samples: Samples, note: str = "") -> str:
    title = samples.title[:1].upper() + samples.title[1:]
    note = f" <small>{note}</small>" if note else ""
    return f'<section class="asset"><h3>{_dot(samples.domain)}{html.escape(title)}{note}</h3>'


def _missing(samples: Samples, item: Item) -> str:
    words = ["python", "-m", "realiz3d_jax.bake", "--mesh", str(item.mesh), "--views", str(item.folder)]
    command = shlex.join([*words, "--output", str(item.folder / items.TEXTURED)])
    text = f"These views have no baked texture yet. Bake it, then write the report again:\n  {command}"
    return f'{_title(samples)}<p class="notice">{html.escape(text)}</p></section>'


def _asset(samples: Samples, uid: str, mesh: TexturedMesh) -> str:
    coverage = samples.items[uid].description.get(items.BAKED, {}).get("coverage")
    seen = "" if coverage is None else f" The views see {coverage:.0%} of the surface; the rest is filled."
    panels = _viewer(samples, uid, mesh) + _turntable(uid, mesh) + _texture(uid, mesh, seen)
    return f'{_title(samples, f"{mesh.faces:,} triangles")}<div class="panels">{panels}</div></section>'


def _viewer(samples: Samples, uid: str, mesh: TexturedMesh) -> str:
    x, y, z = (f"{value:.6g}m" for value in mesh.target)
    name = html.escape(f"{uid}_{samples.row.replace('/', '_')}.glb")
    return (
        f'<figure><figcaption>In 3D</figcaption><model-viewer alt="{html.escape(uid)} in 3D" camera-controls '
        f'touch-action="pan-y" interaction-prompt="none" environment-image="neutral" tone-mapping="neutral" '
        f'shadow-intensity="0.5" camera-target="{x} {y} {z}" '
        f'camera-orbit="0deg {90 - ELEVATION:g}deg {mesh.distance:.6g}m" field-of-view="{FIELD_OF_VIEW:g}deg">'
        f'<img slot="poster" src="{image_uri(mesh.frames[0])}" alt=""><div slot="progress-bar"></div></model-viewer>'
        f'<p><span class="hint">A picture; where scripts run, it turns.</span> '
        f'<a download="{name}" href="{asset_uri(mesh.content)}">Save GLB</a> ({_megabytes(mesh.content)})</p></figure>'
    )


def _turntable(uid: str, mesh: TexturedMesh) -> str:
    count = len(mesh.frames)
    frames = "".join(
        f'<img src="{image_uri(frame)}" alt="{html.escape(uid)} from {360 * number / count:.0f} degrees" {_sides(frame)} '
        f'draggable="false">'
        for number, frame in enumerate(mesh.frames)
    )
    return (
        f'<figure class="turntable"><figcaption>Turntable</figcaption><div class="strip">{frames}</div>'
        '<div class="player" hidden><button type="button" aria-label="Play">'
        '<svg class="play" viewBox="0 0 24 24" aria-hidden="true"><path d="M9.5 7v10l7.5-5z"/></svg>'
        '<svg class="pause" viewBox="0 0 24 24" aria-hidden="true"><path d="M8 7h3v10H8zM13 7h3v10h-3z"/></svg></button>'
        f'<input type="range" min="0" max="{count - 1}" value="0" aria-label="Turn"><output>0°</output></div>'
        "<p>The texture’s own colours, without light.</p></figure>"
    )


def _texture(uid: str, mesh: TexturedMesh, seen: str) -> str:
    if mesh.texture is None:
        return "<figure><figcaption>Texture</figcaption><p>This mesh has none.</p></figure>"
    width, height = mesh.texels
    style = "pixels" if max(mesh.texels) <= _SMALL else "smooth"
    return (
        f'<figure class="texture"><figcaption>Texture</figcaption><img class="{style}" src="{image_uri(mesh.texture)}" '
        f'alt="texture of {html.escape(uid)}" {_sides(mesh.texture)}><p>{width} × {height} texels.{seen}</p></figure>'
    )


def _sides(pixels: np.ndarray) -> str:
    return f'width="{pixels.shape[1]}" height="{pixels.shape[0]}"'


def _dot(style: str) -> str:
    return f'<span class="dot {style}"></span>' if style in (*REFERENCES, "reference") else ""


def _megabytes(content: bytes) -> str:
    return f"{len(content) / 1e6:.1f} MB" if len(content) > 100_000 else f"{len(content) / 1e3:.0f} kB"
