"""The table of figures: a line for each figure, a column for each judged folder, and the true renders set apart."""

import dataclasses
import html
from collections.abc import Callable, Mapping
from typing import Any

from realiz3d_jax.metrics.figures import REFERENCES, Figures


@dataclasses.dataclass(frozen=True)
class _Line:
    """A line of the table.

    Attributes:
      meaning: one sentence for those who meet the figure first.
      better: 1 if more is better, -1 if less is, 0 if neither.
      digits: behind the point.
      read: takes the figure out of a row; it may be absent or None there.
    """

    label: str
    meaning: str
    better: int
    digits: int
    read: Callable[[Mapping[str, Any]], float]

    def values(self, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
        """The rounded figure of each row that has it."""
        found = {}
        for name, row in rows.items():
            try:
                found[name] = round(float(self.read(row)), self.digits) + 0.0  # no negative zero
            except (KeyError, TypeError):
                continue
        return found


def _consistency(part: str, figure: str) -> Callable[[Mapping[str, Any]], float]:
    return lambda row: row["consistency"][part][figure]


_GROUPS = {
    "Realism": (
        _Line(
            *("Real score", "How probably a view is a real render, says a classifier; mean over all views."),
            *(1, 3, lambda row: row["domain_score"]["mean"]),
        ),
        _Line(
            *("Views judged real", "Share of the views with a real score above 0.5."),
            *(1, 2, lambda row: row["domain_score"]["fraction"]),
        ),
        _Line(
            *("FID, base images", "Distance to images of the base model, in the classifier’s features."),
            *(-1, 2, lambda row: row["fid_base"]),
        ),
        _Line(
            *("KID, base images", "The same as an unbiased estimate, which may fall below 0."),
            *(-1, 3, lambda row: row["kid_base"]["mean"]),
        ),
        _Line(
            *("FID, real renders", "Distance to the true real renders of the held-out objects."),
            *(-1, 2, lambda row: row["fid_real"]),
        ),
        _Line(*("KID, real renders", "The same, unbiased.", -1, 3, lambda row: row["kid_real"]["mean"])),
    ),
    "Control": (
        _Line(
            *("Silhouette IoU", "Overlap of a view’s outline with that of the mesh; 1 is perfect."),
            *(1, 3, lambda row: row["silhouette_iou"]["mean"]),
        ),
        _Line(
            *("Worst view’s IoU", "The lowest overlap among all views of all objects."),
            *(1, 3, lambda row: row["silhouette_iou"]["worst"]),
        ),
    ),
    "Multi-view consistency": (
        _Line(
            *("PSNR, dB", "Views put onto the mesh and drawn again from there, against themselves."),
            *(1, 2, _consistency("whole", "psnr")),
        ),
        _Line("SSIM", "The same by structure; 1 is perfect.", 1, 3, _consistency("whole", "ssim")),
        _Line(
            *("Overlap-only PSNR, dB", "Each view against what the other three show of the same surface."),
            *(1, 2, _consistency("overlap", "psnr")),
        ),
        _Line("Overlap-only SSIM", "The same by structure.", 1, 3, _consistency("overlap", "ssim")),
        _Line(
            *("Overlap / foreground", "Share of the foreground that another view sees, too."),
            *(0, 2, _consistency("overlap", "fraction")),
        ),
    ),
    "Sample size": (_Line("Objects", "Each with four views.", 0, 0, lambda row: row["count"]["objects"]),),
}
_ARROWS = {1: ("↑", "more is better"), -1: ("↓", "less is better")}


def render(figures: Figures, styles: Mapping[str, str]) -> str:
    """The ``<table>``.

    Args:
      styles: the class of the style sheet of each row that has a colour.
    """
    sampled = [name for name in figures.rows if name not in REFERENCES.values()]
    references = [name for name in REFERENCES.values() if name in figures.rows]
    heads = "".join(f'<th scope="col">{_dot(styles.get(name))}{html.escape(name)}</th>' for name in sampled)
    heads += "".join(
        f'<th scope="col" class="reference">{html.escape(name.removesuffix(" renders"))}</th>' for name in references
    )
    spans = f'<th scope="colgroup" colspan="{len(sampled)}">Sampled</th>' if sampled else ""
    if references:
        spans += f'<th scope="colgroup" class="reference" colspan="{len(references)}">Reference renders</th>'
    bodies = "".join(_group(title, lines, figures, sampled, references) for title, lines in _GROUPS.items())
    return (
        f'<table><thead><tr class="spans"><td></td>{spans}</tr><tr><th scope="col">Figure</th>{heads}</tr></thead>'
        f"{bodies}</table>"
    )


def _group(title: str, lines: tuple[_Line, ...], figures: Figures, sampled: list[str], references: list[str]) -> str:
    """The lines of a group that any row has a figure for; nothing if there is none."""
    drawn = []
    for line in lines:
        values = line.values(figures.rows)
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


def _cell(line: _Line, value: float | None, best: float | None, style: str) -> str:
    if value is None:
        return f'<td class="{style} absent">–</td>'
    text = f"{value:.{line.digits}f}".replace("-", "−")
    return f'<td class="{style}">{f"<strong>{text}</strong>" if value == best else text}</td>'


def _dot(style: str | None) -> str:
    return f'<span class="dot {style}"></span>' if style else ""
