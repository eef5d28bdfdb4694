"""The report's page: one HTML file that needs no network and no script, with identical bytes for identical inputs."""

import dataclasses
import html
import json
import math
import pathlib
import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from realiz3d_jax.config.schema import to_json
from realiz3d_jax.data.records import Records
from realiz3d_jax.metrics.evaluation import STRIPS
from realiz3d_jax.metrics.stored import REFERENCES, StoredMetrics
from realiz3d_jax.reporting import charts, commands, facts, table
from realiz3d_jax.reporting.images import png_uri
from realiz3d_jax.reporting.inputs import Samples, TrainingRun, common_objects, read_grid, read_image
from realiz3d_jax.views import to_grid

_TEMPLATE, _STYLE = (pathlib.Path(__file__).with_name(name) for name in ("page.html", "style.css"))
_GAP, _MARGIN, _LARGEST, _SMALLEST = 12, 32, 256, 128
"""CSS pixels: gap between pictures, page margin, and largest and smallest side of an object's picture."""

_STAGES = {
    ("pretraining", "pretrain"): "Base model",
    ("realiz3d", "stage1"): "Stage 1: Domain Shifters",
    ("realiz3d", "stage2"): "Stage 2: backbone and control, bound to the shifters",
    ("syn_only", "finetune"): "Syn only: control learned from synthetic renders alone",
}
_CONTROLS = {"texture": "the geometry of a mesh", "text_to_multiview": "four fixed viewpoints"}


@dataclasses.dataclass(frozen=True)
class Report:
    """Contents of the page.

    Attributes:
      metrics: the metrics.
      folders: sampled folders, a column of pictures each.
      runs: training runs.
      split: the benchmark's objects with their true renders, or None.
      split_name: name of the split.
      objects: maximum number of objects to show.
      output: file of the page, which quotes its own command.
      data: folder of the datasets, named in the commands.
      pages: maximum number of objects with a page of their own.
      links: by uid, the links from the report to the objects' own pages.
    """

    metrics: StoredMetrics
    folders: Sequence[Samples]
    runs: Sequence[TrainingRun]
    split: Records | None
    split_name: str
    objects: int
    output: pathlib.Path
    data: str = "datasets"
    pages: int = 0
    links: Mapping[str, str] = dataclasses.field(default_factory=dict)


def render(report: Report) -> str:
    """Renders the page as HTML.

    Raises:
      UserError: an image is missing or damaged, or the folders have no object in common.
    """
    styles = {folder.row: folder.domain for folder in report.folders if folder.domain}
    pictures, columns = _pictures(report)
    return string.Template(_TEMPLATE.read_text()).substitute(
        style=_STYLE.read_text(),
        layout=_layout(columns, 2 * report.metrics.size),
        lede=_lede(report.folders[0]),
        facts=facts.of_report(report.metrics, report.folders, report.runs, report.split is not None),
        table=table.render(report.metrics, styles),
        strips=_strips(report.metrics, styles),
        choice=_choice(report),
        pictures=pictures + _further(report),
        curves="".join(map(_curves, report.runs)) or "<p>No run was given.</p>",
        reproduce=_reproduce(report),
    )


def _layout(columns: int, side: int) -> str:
    """Returns style rules that show pictures of ``side`` pixels at the largest whole multiple of their size that fits."""
    rules = []
    for tile in range(side * max(_SMALLEST // side, 1), _LARGEST + 1, side):
        page = columns * tile + (columns - 1) * _GAP
        rules.append(
            f"@media screen and (min-width: {page + 2 * _MARGIN}px) {{ :root {{ --page: {page}px }} "
            f".views {{ grid-template-columns: repeat({columns}, {tile}px) }} }}"
        )
    return f"@media print {{ .views {{ grid-template-columns: repeat({columns}, 1fr) }} }}\n" + "\n".join(rules)


def _lede(folder: Samples) -> str:
    control = _CONTROLS.get(folder.common("task") or "", "a control")
    return html.escape(
        f"A diffusion model that draws four views of an object under {control} learns that control from synthetic "
        "renders, and with it their look. Realiz3D first teaches the model that real and synthetic are two looks it can "
        "choose between, so that afterwards it can follow the control in the real one."
    )


def _strips(metrics: StoredMetrics, styles: Mapping[str, str]) -> str:
    """Returns charts of the spread behind some of the means: one dot per object."""
    names = [name for name in metrics.rows if name not in REFERENCES.values()]
    names += [name for name in REFERENCES.values() if name in metrics.rows]
    panels = []
    for strip in STRIPS:
        rows = []
        for name in names:
            found = map(strip.value, metrics.objects(name).values())
            if values := [value for value in found if value is not None]:
                rows.append((name, "reference" if name in REFERENCES.values() else styles.get(name, ""), values))
        if rows:
            least = min(min(values) for _, _, values in rows)
            low = math.floor(min(least, 0.95) * 20) / 20 if strip.low is None else strip.low
            chart = charts.strip_chart(f"{strip.title}: {strip.label}", strip.label, rows, low)
            panels.append(f"<figure><figcaption><b>{strip.title}</b></figcaption>{chart}</figure>")
    return "".join(panels)


def _choice(report: Report) -> str:
    shown = len(_shown(report))
    count = len(report.folders[0].items)
    which = f"The first {shown} of {count} objects in order of name, not selected." if shown < count else "All objects."
    if report.split is None:
        which += " The true renders are not shown, since the benchmark's data is not available."
    if report.links:
        pages = len(report.links)
        which += " Captions and pictures lead to a page of each object: its turntable, its mesh in 3D, every map."
        if pages < count:
            which += f" The first {pages} of {count} have one."
    return html.escape(which)


def _further(report: Report) -> str:
    """Returns links to the pages of objects without pictures in the report."""
    names = [uid for uid in report.links if uid not in _shown(report)]
    if not names:
        return ""
    return f'<p class="quiet">Further objects: {", ".join(_linked(html.escape(uid), report.links[uid]) for uid in names)}.</p>'


def _shown(report: Report) -> list[str]:
    return common_objects(report.folders)[: report.objects]


def _pictures(report: Report) -> tuple[str, int]:
    """Returns the rows of pictures, one per object, and the number of pictures in the widest row."""
    size, metrics = report.metrics.size, report.metrics
    true = {record["uid"]: record for record in report.split or ()}
    rows, columns = [], 0
    for uid in _shown(report):
        tiles, link = [], report.links.get(uid, "")
        normal = report.folders[0].items[uid].folder / "normal.png"
        if normal.exists():
            control = read_image(normal, 2 * size)
            tiles.append(_tile("control", "", control, "normals", f"normal maps of {uid}", link))
        for folder in report.folders:
            label, note = folder.title, scores(metrics.objects(folder.row)[uid])
            tiles.append(_tile(label, folder.domain, read_grid(folder.items[uid], size), note, f"{label}: {uid}", link))
        for look in REFERENCES if uid in true else ():
            label = {"real": "true real render", "synthetic": "true flat render"}[look]
            evaluated = metrics.objects(REFERENCES[look]).get(uid)
            grid = to_grid(true[uid][look])
            note = scores(evaluated) if evaluated else ""
            tiles.append(_tile(label, "reference", grid, note, f"{label} of {uid}", link))
        caption = _linked(html.escape(report.folders[0].items[uid].caption), link)
        rows.append(
            f'<section class="object"><h3>{caption} <small>{html.escape(uid)}</small></h3>'
            f'<div class="views">{"".join(tiles)}</div></section>'
        )
        columns = max(columns, len(tiles))
    return "".join(rows), columns


def _tile(label: str, style: str, pixels: np.ndarray, note: str, alternative: str, link: str) -> str:
    dot = f'<span class="dot {style}"></span>' if style in REFERENCES else ""
    image = (
        f'<img src="{png_uri(pixels)}" alt="{html.escape(alternative)}" '
        f'width="{pixels.shape[1]}" height="{pixels.shape[0]}">'
    )
    return f"<figure><figcaption>{dot}{html.escape(label)}</figcaption>{_linked(image, link)}<p>{note}</p></figure>"


def _linked(content: str, link: str) -> str:
    return f'<a href="{html.escape(link)}">{content}</a>' if link else content


def scores(item: Mapping[str, Any]) -> str:
    """The metrics of one object, as HTML."""
    found = [(strip.short, strip.value(item)) for strip in STRIPS]
    return " · ".join(f"{short} <b>{value:.2f}</b>" for short, value in found if value is not None)


def _curves(run: TrainingRun) -> str:
    """Returns a run's facts and its three charts."""
    config = run.config
    title = _STAGES.get((config.method["name"], config.stage), f"{config.method['name']}, {config.stage}")
    trained = sum(run.parameters[name] for name in run.trainable)
    skipped = sum(line.get("skipped_steps", 0) for line in run.lines)
    summary = (
        f"{run.lines[-1]['step']:,} of {config.steps:,} steps of {config.data.batch_grids} grids, learning rate "
        f"{config.optimizer.learning_rate:g} ({config.optimizer.schedule}), seed {config.seed}; "
        f"{facts.thousands(trained)} of {facts.thousands(sum(run.parameters.values()))} parameters train "
        f"({', '.join(run.trainable)}); {skipped or 'no'} steps skipped as not finite."
    )
    panels = [
        _panel("Loss", "prediction MSE", _series(run, "loss/"), True, ".4f"),
        _panel("Gradient norm", "L2 norm, unclipped", _series(run, "gradient_norm/"), True, "#.3g"),
        _panel("Speed", "images/s", _series(run, "images_per_second"), False, ".0f"),
    ]
    return (
        f'<section class="run"><h3>{html.escape(title)} <small>{html.escape(str(run.path))}</small></h3>'
        f'<p>{html.escape(summary)}</p><div class="charts">{"".join(panels)}</div></section>'
    )


def _series(run: TrainingRun, prefix: str) -> list[charts.Series]:
    """Returns a line for each metric whose name begins with ``prefix``; the rest of the name is the kind of iteration."""
    names = dict.fromkeys(name for line in run.lines for name in line if name.startswith(prefix))
    return [
        charts.Series(
            name.removeprefix(prefix),
            name.removeprefix(prefix) or "plain",
            [(line["step"], line[name]) for line in run.lines if name in line],
        )
        for name in sorted(names)
    ]


def _panel(title: str, y_label: str, series: Sequence[charts.Series], logarithmic: bool, form: str) -> str:
    legend = "".join(
        f'<span class="key"><span class="dash {line.style}"></span>{html.escape(line.name)} '
        f"{'' if line.name else 'last '}<b>{line.points[-1][1]:{form}}</b></span>"
        for line in series
    )
    scale = ", log scale" if logarithmic else ""
    chart = charts.line_chart(f"{title} over training steps", f"{y_label}{scale}", series, logarithmic)
    return f"<figure><figcaption><b>{title}</b> {legend}</figcaption>{chart}</figure>"


def _reproduce(report: Report) -> str:
    lines: list[str] = []
    unknown = []
    for run in report.runs:
        command = commands.train_command(run)
        lines += [command] if command else []
        unknown += [] if command else [f"{run.path} (see its settings below)"]
    for folder in report.folders:
        command = commands.sample_command(folder, report.split, report.split_name, report.data)
        lines += [command] if command else []
        unknown += [] if command else [f"{folder.path} (each item.json there records how)"]
    lines.append(report.metrics.command)
    options = ["--split", report.split_name, "--objects", str(report.objects), "--pages", str(report.pages)]
    options += ["--output", str(report.output)]
    lines.append(commands.report_command(report.metrics, report.folders, report.runs, options, report.data))
    text = f'<pre class="commands">{html.escape((chr(10) * 2).join(lines))}</pre>'
    if unknown:
        text += f"<p>No single command is on record for {html.escape(', '.join(unknown))}.</p>"
    for run in report.runs:
        text += (
            f"<details><summary>All settings of {html.escape(str(run.path))}</summary>"
            f"<pre>{html.escape(to_json(run.config))}</pre></details>"
        )
    evaluator = json.dumps(dict(report.metrics.classifier), indent=2)
    return text + f"<details><summary>The evaluating classifier</summary><pre>{html.escape(evaluator)}</pre></details>"
