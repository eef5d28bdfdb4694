"""One picture of a few objects, for a README or a slide: control, all sampled folders, true renders."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from realiz3d_jax.data.records import Records
from realiz3d_jax.metrics.stored import StoredMetrics
from realiz3d_jax.reporting import inputs
from realiz3d_jax.reporting.inputs import Samples
from realiz3d_jax.views import VIEWS, to_views

_SCALE = 4
_GAP = 12
_CAPTION = 26


def render_picture(metrics: StoredMetrics, folders: Sequence[Samples], held_out: Records | None, objects: int) -> bytes:
    """Renders a PNG with one row for each of the first ``objects`` objects, and four views side by side in each column.

    Args:
      metrics: gives the size of a view.
      folders: one column each; the control is taken from the first.
      held_out: the benchmark's split, for the true real renders; None omits them.
      objects: maximum number of rows.
    """
    truth = {record["uid"]: record["real"] for record in held_out} if held_out is not None else {}
    shown = [uid for uid in folders[0].items if all(uid in folder.items for folder in folders)][:objects]
    rows = [_columns(uid, metrics, folders, truth) for uid in shown]
    width, height = metrics.size * VIEWS * _SCALE + _GAP, metrics.size * _SCALE + _CAPTION
    sheet = Image.new("RGB", (width * len(rows[0]) + _GAP, height * len(rows) + _CAPTION), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for column, title in enumerate(rows[0]):
        draw.text((_GAP + column * width, 5), title, fill=(90, 90, 90), font=font)
    for row, (uid, columns) in enumerate(zip(shown, rows, strict=True)):
        top = _CAPTION + row * height
        draw.text((_GAP, top), folders[0].items[uid].caption, fill=(20, 20, 20), font=font)
        for column, strip in enumerate(columns.values()):
            picture = Image.fromarray(strip).resize((strip.shape[1] * _SCALE, strip.shape[0] * _SCALE), Image.NEAREST)
            sheet.paste(picture, (_GAP + column * width, top + _CAPTION - 4))
    content = io.BytesIO()
    sheet.save(content, "PNG", optimize=True)
    return content.getvalue()


def _columns(
    uid: str, metrics: StoredMetrics, folders: Sequence[Samples], truth: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns the views uint8[H, 4 W, 3] of each column, by title."""
    columns = {}
    normal = folders[0].items[uid].folder / "normal.png"
    if normal.exists():
        columns["control (normals)"] = _strip(inputs.read_image(normal, 2 * metrics.size))
    for folder in folders:
        columns[folder.row] = _strip(inputs.read_grid(folder.items[uid], metrics.size))
    if uid in truth:
        columns["true real render"] = np.concatenate(truth[uid], axis=1)
    return columns


def _strip(grid: np.ndarray) -> np.ndarray:
    """Places the views of a grid side by side."""
    return np.concatenate(list(to_views(grid)), axis=1)
