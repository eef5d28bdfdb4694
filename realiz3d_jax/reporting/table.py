"""The table of metrics: a line for each metric, a column for each evaluated folder, and the true renders set apart."""

import html
from collections.abc import Mapping

from realiz3d_jax.metrics.evaluation import LINES
from realiz3d_jax.metrics.metric import Line
from realiz3d_jax.metrics.stored import REFERENCES, StoredMetrics

_ARROWS = {1: ("↑", "more is better"), -1: ("↓", "less is better")}


def render(metrics: StoredMetrics, styles: Mapping[str, str]) -> str:
    """The ``<table>``.

    Args:
      styles: the class of the style sheet of each row that has a colour.
    """
    sampled = [name for name in metrics.rows if name not in REFERENCES.values()]
    references = [name for name in REFERENCES.values() if name in metrics.rows]
    heads = "".join(f'<th scope="col">{_dot(styles.get(name))}{html.escape(name)}</th>' for name in sampled)
    heads += "".join(
        f'<th scope="col" class="reference">{html.escape(name.removesuffix(" renders"))}</th>' for name in references
    )
    spans = f'<th scope="colgroup" colspan="{len(sampled)}">Sampled</th>' if sampled else ""
    if references:
        spans += f'<th scope="colgroup" class="reference" colspan="{len(references)}">Reference renders</th>'
    bodies = "".join(_group(title, lines, metrics, sampled, references) for title, lines in LINES.items())
    return (
        f'<table><thead><tr class="spans"><td></td>{spans}</tr><tr><th scope="col">Figure</th>{heads}</tr></thead>'
        f"{bodies}</table>"
    )


def _group(
    title: str, lines: tuple[Line, ...], metrics: StoredMetrics, sampled: list[str], references: list[str]
) -> str:
    """The lines of a group that any row has a figure for; nothing if there is none."""
    drawn = []
    for line in lines:
        found = {name: line.value(row) for name, row in metrics.rows.items()}
        values = {name: value for name, value in found.items() if value is not None}
        if not values:
            continue
        compared = [values[name] for name in sampled if name in values]
        best = max(compared, key=lambda value: line.better * value) if line.better and len(compared) > 1 else None
        cells = [_cell(line, values.get(name), best, "") for name in sampled]
        cells += [_cell(line, values.get(name), None, "reference") for name in references]
        arrow = ""
        if line.better:
            sign, spoken = _ARROWS[line.better]
            arrow = f'&nbsp;<span class="arrow" title="{spoken}" aria-label="{spoken}">{sign}</span>'
        drawn.append(
            f'<tr><th scope="row">{html.escape(line.label)}{arrow}<small>{html.escape(line.meaning)}</small></th>'
            f"{''.join(cells)}</tr>"
        )
    if not drawn:
        return ""
    columns = 1 + len(sampled) + len(references)
    head = f'<tr class="group"><th scope="rowgroup" colspan="{columns}">{html.escape(title)}</th></tr>'
    return f"<tbody>{head}{''.join(drawn)}</tbody>"


def _cell(line: Line, value: float | None, best: float | None, style: str) -> str:
    if value is None:
        return f'<td class="{style} absent">–</td>'
    text = f"{value:.{line.digits}f}".replace("-", "−")
    return f'<td class="{style}">{f"<strong>{text}</strong>" if value == best else text}</td>'


def _dot(style: str | None) -> str:
    return f'<span class="dot {style}"></span>' if style else ""
