"""The report's page: one HTML file that needs no network and no script, and is the same bytes for the same inputs."""

import base64
import dataclasses
import html
import io
import json
import math
import pathlib
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from realiz3d_jax.data.records import Records
from realiz3d_jax.errors import UserError
from realiz3d_jax.reporting import charts, commands, table
from realiz3d_jax.reporting.inputs import REFERENCES, Figures, Samples, TrainingRun, read_grid, read_image
from realiz3d_jax.training.config import to_json

_TEMPLATE = pathlib.Path(__file__).with_name("page.html")
_GAP, _MARGIN, _LARGEST, _SMALLEST = 12, 32, 256, 128
"""CSS pixels between pictures, beside the page, and along the side of an object's picture."""

_STAGES = {
    ("pretraining", "pretrain"): "Base model",
    ("realiz3d", "stage1"): "Stage 1: Domain Shifters",
    ("realiz3d", "stage2"): "Stage 2: backbone and control, bound to the shifters",
    ("syn_only", "finetune"): "Syn only: control learned from synthetic renders alone",
}
_CONTROLS = {"texture": "the geometry of a mesh", "text_to_multiview": "four fixed viewpoints"}


@dataclasses.dataclass(frozen=True)
class Report:
    """What the page shows.

    Attributes:
      split: the benchmark's objects with their true renders, or None.
      objects: the most objects to show.
      data: the folder of the datasets, which the commands name.
      output: where the page will lie; it quotes its own command.
    """

    figures: Figures
    folders: Sequence[Samples]
    runs: Sequence[TrainingRun]
    split: Records | None
    split_name: str
    objects: int
    output: pathlib.Path
    data: str = "datasets"


def render(report: Report) -> str:
    """The whole page.

    Raises:
      UserError: an image is missing or damaged, or the folders have no object in common.
    """
    styles = {folder.row: folder.domain for folder in report.folders if folder.domain}
    pictures, columns = _pictures(report)
    return string.Template(_TEMPLATE.read_text()).substitute(
        layout=_layout(columns, 2 * report.figures.size),
        lede=_lede(report.folders[0]),
        facts=_facts(report),
        table=table.render(report.figures, styles),
        strips=_strips(report.figures, styles),
        choice=_choice(report),
        pictures=pictures,
        curves="".join(map(_curves, report.runs)) or "<p>No run was given.</p>",
        reproduce=_reproduce(report),
    )


def _layout(columns: int, side: int) -> str:
    """Style rules that show pictures of ``side`` pixels at whole multiples of their size, as large as there is room."""
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


def _facts(report: Report) -> str:
    """What was run, as a list of terms."""
    folders, figures = report.folders, report.figures
    objects = sorted({len(folder.items) for folder in folders})
    facts = {
        "Task": ", ".join(_distinct(str(folder.common("task")).replace("_", " to ", 1) for folder in folders)),
        "Objects": f"{' or '.join(map(str, objects))} held-out objects, four views each of "
        f"{figures.size} × {figures.size} pixels"
        if report.split is not None
        else f"{' or '.join(map(str, objects))} objects, four views each of {figures.size} × {figures.size} pixels",
        "Model": "\n".join(_distinct(_model(folder, report.runs) for folder in folders)),
        "Sampling": "; ".join(_distinct(map(_sampling, folders))),
        "Seeds": "; ".join(
            _distinct(
                [f"samples {_span([item['seed'] for item in folder.items.values()])}" for folder in folders]
                + [f"training {run.config.seed}" for run in report.runs]
                + [f"classifier {figures.classifier.get('seed', 'unknown')}"]
            )
        ),
        "Judge": _judge(figures),
        "Software": "; ".join(
            _distinct(
                ", ".join(f"{name} {version}" for name, version in (folder.common("versions") or {}).items())
                for folder in folders
            )
        ),
    }
    return "".join(
        f"<div><dt>{html.escape(term)}</dt><dd>{html.escape(fact)}</dd></div>" for term, fact in facts.items() if fact
    )


def _model(folder: Samples, runs: Sequence[TrainingRun]) -> str:
    source, checksum = folder.common("model", "source"), folder.common("model", "sha256")
    if source is None:
        return f"several ({folder.row})"
    name = f"{source} (SHA-256 {str(checksum)[:12]}…)" if checksum else source
    run = next((run for run in runs if run.path.resolve() == pathlib.Path(source).resolve()), None)
    return f"{name}, {_size(run)}" if run else name


def _size(run: TrainingRun) -> str:
    model = run.config.model
    parts = ", ".join(f"{name} {_thousands(count)}" for name, count in run.parameters.items())
    return (
        f"{_thousands(sum(run.parameters.values()))} parameters ({parts}); {model.depth} blocks of width {model.width}, "
        f"{model.heads} heads, patch {model.patch_size}"
    )


def _sampling(folder: Samples) -> str:
    settings = folder.common("sampling")
    if settings is None:
        return f"various ({folder.row})"
    names = {"ddim": "DDIM", "dpm++": "DPM-Solver++ 2M"}
    return (
        f"{names.get(settings['sampler'], settings['sampler'])}, {settings['steps']} steps, guidance "
        f"{settings['guidance_scale']:g}, B_max {settings['block_max']:g}, t_max {settings['timestep_max']}"
    )


def _judge(figures: Figures) -> str:
    facts = figures.classifier
    text = facts.get("file", "a classifier")
    if "held_out_accuracy" in facts:
        text += f", right in {facts['held_out_accuracy']:.1%} of {facts['held_out_images']} images of unseen objects"
    return text


def _strips(figures: Figures, styles: Mapping[str, str]) -> str:
    """The spread behind two of the means: a dot for each object."""
    names = [name for name in figures.rows if name not in REFERENCES.values()]
    names += [name for name in REFERENCES.values() if name in figures.rows]
    panels = []
    for key, title, label in (
        ("domain_score", "Realism of each object", "real score (mean of four views)"),
        ("silhouette_iou", "Control of each object", "silhouette IoU (mean of four views)"),
    ):
        rows = []
        for name in names:
            values = [_mean(item[key]) for item in figures.objects(name).values() if item[key] is not None]
            if values:
                rows.append((name, "reference" if name in REFERENCES.values() else styles.get(name, ""), values))
        if rows:
            least = min(min(values) for _, _, values in rows)
            low = 0.0 if key == "domain_score" else math.floor(min(least, 0.95) * 20) / 20
            chart = charts.strip_chart(f"{title}: {label}", label, rows, low)
            panels.append(f"<figure><figcaption><b>{title}</b></figcaption>{chart}</figure>")
    return "".join(panels)


def _choice(report: Report) -> str:
    shown = len(_shown(report))
    count = len(report.folders[0].items)
    which = f"The first {shown} of {count} objects in order of name, not picked." if shown < count else "All objects."
    if report.split is None:
        which += " The true renders are not shown, since the benchmark's data is not there."
    return html.escape(which)


def _shown(report: Report) -> list[str]:
    common = [uid for uid in report.folders[0].items if all(uid in folder.items for folder in report.folders)]
    if not common:
        first, other = report.folders[0].path, report.folders[-1].path
        raise UserError(
            f"--samples: {first} and {other} have no object in common; expected the same ones side by side."
        )
    return common[: report.objects]


def _pictures(report: Report) -> tuple[str, int]:
    """The rows of pictures, one for each object, and how many pictures the widest has."""
    size, figures = report.figures.size, report.figures
    true = {record["uid"]: record for record in report.split or ()}
    rows, columns = [], 0
    for uid in _shown(report):
        tiles = []
        normal = report.folders[0].path / uid / "normal.png"
        if normal.exists():
            tiles.append(_tile("control", "", read_image(normal, 2 * size), "normals", f"normal maps of {uid}"))
        for folder in report.folders:
            name = folder.row if folder.domain in ("", folder.row) else f"{folder.row}, {folder.domain} mode"
            label = f"{folder.domain} mode" if folder.domain == folder.row else name
            scores = _scores(figures.objects(folder.row)[uid])
            tiles.append(_tile(label, folder.domain, read_grid(folder, uid, size), scores, f"{label}: {uid}"))
        for look in REFERENCES if uid in true else ():
            label = {"real": "true real render", "synthetic": "true flat render"}[look]
            judged = figures.objects(REFERENCES[look]).get(uid)
            grid = np.block(
                [[[true[uid][look][0]], [true[uid][look][1]]], [[true[uid][look][2]], [true[uid][look][3]]]]
            )
            tiles.append(_tile(label, "reference", grid, _scores(judged) if judged else "", f"{label} of {uid}"))
        caption = html.escape(report.folders[0].items[uid]["caption"])
        rows.append(
            f'<section class="object"><h3>{caption} <small>{html.escape(uid)}</small></h3>'
            f'<div class="views">{"".join(tiles)}</div></section>'
        )
        columns = max(columns, len(tiles))
    return "".join(rows), columns


def _tile(label: str, style: str, pixels: np.ndarray, note: str, alternative: str) -> str:
    dot = f'<span class="dot {style}"></span>' if style in REFERENCES else ""
    return (
        f"<figure><figcaption>{dot}{html.escape(label)}</figcaption>"
        f'<img src="{_data_uri(pixels)}" alt="{html.escape(alternative)}" '
        f'width="{pixels.shape[1]}" height="{pixels.shape[0]}"><p>{note}</p></figure>'
    )


def _scores(item: Mapping[str, Any]) -> str:
    text = f"real <b>{item['domain_score']:.2f}</b>"
    return text if item["silhouette_iou"] is None else f"{text} · IoU <b>{_mean(item['silhouette_iou']):.2f}</b>"


def _data_uri(pixels: np.ndarray) -> str:
    """uint8[H, W, 3] as a PNG inside a URI."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _curves(run: TrainingRun) -> str:
    """A run's facts and its three charts."""
    config = run.config
    title = _STAGES.get((config.method["name"], config.stage), f"{config.method['name']}, {config.stage}")
    trained = sum(run.parameters[name] for name in run.trainable)
    skipped = sum(line.get("skipped_steps", 0) for line in run.lines)
    facts = (
        f"{run.lines[-1]['step']:,} of {config.steps:,} steps of {config.data.batch_grids} grids, learning rate "
        f"{config.optimizer.learning_rate:g} ({config.optimizer.schedule}), seed {config.seed}; "
        f"{_thousands(trained)} of {_thousands(sum(run.parameters.values()))} parameters train "
        f"({', '.join(run.trainable)}); {skipped or 'no'} steps skipped as not finite."
    )
    panels = [
        _panel("Loss", "noise MSE", _series(run, "loss/"), True, ".4f"),
        _panel("Gradient norm", "L2 norm, unclipped", _series(run, "gradient_norm/"), True, "#.3g"),
        _panel("Speed", "images/s", _series(run, "images_per_second"), False, ".0f"),
    ]
    return (
        f'<section class="run"><h3>{html.escape(title)} <small>{html.escape(str(run.path))}</small></h3>'
        f'<p>{html.escape(facts)}</p><div class="charts">{"".join(panels)}</div></section>'
    )


def _series(run: TrainingRun, prefix: str) -> list[charts.Series]:
    """A line for each metric that begins with ``prefix``; the rest of the name is the kind of iteration."""
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
        unknown += [] if command else [f"{folder.path} (each item.json there says how)"]
    lines.append(report.figures.command)
    options = ["--split", report.split_name, "--objects", str(report.objects), "--output", str(report.output)]
    lines.append(commands.report_command(report.figures, report.folders, report.runs, options, report.data))
    text = f'<pre class="commands">{html.escape((chr(10) * 2).join(lines))}</pre>'
    if unknown:
        text += f"<p>No single command is on record for {html.escape(', '.join(unknown))}.</p>"
    for run in report.runs:
        text += (
            f"<details><summary>All settings of {html.escape(str(run.path))}</summary>"
            f"<pre>{html.escape(to_json(run.config))}</pre></details>"
        )
    facts = json.dumps(dict(report.figures.classifier), indent=2)
    return text + f"<details><summary>The judging classifier</summary><pre>{html.escape(facts)}</pre></details>"


def _mean(values: float | Sequence[float]) -> float:
    return float(np.mean(values))


def _distinct(texts: Iterable[str]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if text]


def _span(numbers: Sequence[int]) -> str:
    """ "0–39" of consecutive numbers, else the numbers."""
    ordered = sorted(numbers)
    if ordered == list(range(ordered[0], ordered[0] + len(ordered))) and len(ordered) > 1:
        return f"{ordered[0]}–{ordered[-1]}"
    return ", ".join(map(str, ordered))


def _thousands(count: int) -> str:
    """1,750,000 as "1.75 M"."""
    if count >= 1_000_000:
        return f"{count / 1e6:.3g} M"
    return f"{count / 1e3:.3g} k" if count >= 1_000 else str(count)
