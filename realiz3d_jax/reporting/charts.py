"""Charts as inline SVG; their colours come from the page's style sheet, so they follow its light and dark schemes."""

import dataclasses
import html
import math
from collections.abc import Callable, Sequence

_WIDTH, _HEIGHT = 400.0, 230.0
_STRIP_WIDTH, _BAND = 520.0, 50.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 12.0, 12.0, 46.0
_MARKED_POINTS = 24
"""Lines with at most this many points mark each point."""


@dataclasses.dataclass(frozen=True)
class Series:
    """A line in one colour.

    Attributes:
      name: name in the legend.
      style: class of the style sheet that sets the colour.
      points: the (x, y) points of the line.
    """

    name: str
    style: str
    points: Sequence[tuple[float, float]]


def line_chart(title: str, y_label: str, series: Sequence[Series], logarithmic: bool = False) -> str:
    """Draws lines over the training step, as an ``<svg>``.

    Args:
      title: text alternative of the chart.
      y_label: label of the y axis, with its unit.
      series: the lines, with at least one point in total.
      logarithmic: whether the y axis is logarithmic; points that are not positive are then left out.
    """
    lines = [
        dataclasses.replace(line, points=[point for point in line.points if point[1] > 0 or not logarithmic])
        for line in series
    ]
    points = [point for line in lines for point in line.points]
    steps, values = [x for x, _ in points] or [0.0], [y for _, y in points] or [1.0]
    right = max(max(steps), 1)
    low, high = (min(values), max(values)) if logarithmic else (0.0, max(max(values), 1e-12))
    y_ticks = _log_ticks(low, high) if logarithmic else _linear_ticks(low, high)
    low, high = min(low, y_ticks[0]), max(high, y_ticks[-1])
    scale = math.log10 if logarithmic else float
    x_of = _axis(0, right, _LEFT, _WIDTH - _RIGHT)
    y_of = _axis(scale(low), scale(high), _HEIGHT - _BOTTOM, _TOP)
    drawn = [_y_grid(tick, y_of(scale(tick))) for tick in y_ticks]
    drawn += [_x_tick(tick, x_of(tick), _HEIGHT - _BOTTOM) for tick in _linear_ticks(0, right)]
    for line in lines:
        drawn.append(_polyline(line, [(x_of(x), y_of(scale(y))) for x, y in line.points]))
    drawn.append(_axis_titles("training step", y_label, _HEIGHT))
    return _svg(title, _WIDTH, _HEIGHT, drawn)


def strip_chart(title: str, x_label: str, rows: Sequence[tuple[str, str, Sequence[float]]], low: float) -> str:
    """Draws one dot per object, one strip of dots per row, and a bar at each row's mean, as an ``<svg>``.

    Args:
      title: text alternative of the chart.
      x_label: label of the x axis.
      rows: (name, class of the style sheet, values in [low, 1]) of each row.
      low: start of the x axis.
    """
    bottom = _TOP + _BAND * len(rows)
    left, x_of = 4.0, _axis(low, 1, 14, _STRIP_WIDTH - 14)
    drawn = []
    for tick in _linear_ticks(low, 1.0):
        x = x_of(tick)
        drawn.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}"/>')
        drawn.append(_x_tick(tick, x, bottom))
    for number, (name, style, values) in enumerate(rows):
        top, middle = _TOP + _BAND * number, _TOP + _BAND * number + 32
        drawn.append(f'<text class="name" x="{left}" y="{top + 12:.1f}">{html.escape(name)}</text>')
        dots = _swarm([x_of(value) for value in values], middle, 3.0, 13.0)
        circles = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in dots)
        drawn.append(f'<g class="dots {style}">{circles}</g>')
        mean = x_of(sum(values) / len(values))
        drawn.append(
            f'<line class="mean" x1="{mean:.1f}" x2="{mean:.1f}" y1="{middle - 15:.1f}" y2="{middle + 15:.1f}"/>'
        )
    drawn.append(f'<text class="label" x="{_STRIP_WIDTH / 2}" y="{bottom + 38:.1f}">{html.escape(x_label)}</text>')
    return _svg(title, _STRIP_WIDTH, bottom + 46, drawn)


def _svg(title: str, width: float, height: float, drawn: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{html.escape(title)}">'
        f"<title>{html.escape(title)}</title>{''.join(drawn)}</svg>"
    )


def _axis(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Returns the linear map from [low, high] to [start, end]; an empty range maps to the middle."""
    if high == low:
        return lambda value: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _polyline(line: Series, places: Sequence[tuple[float, float]]) -> str:
    marks = ""
    if len(places) <= _MARKED_POINTS:
        marks = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4"/>' for x, y in places)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<g class="line {line.style}"><polyline points="{path}"/>{marks}</g>'


def _y_grid(tick: float, y: float) -> str:
    return (
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick left" x="{_LEFT - 6}" y="{y + 4:.1f}">{_number(tick)}</text>'
    )


def _x_tick(tick: float, x: float, y: float) -> str:
    return (
        f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{y:.1f}" y2="{y + 4:.1f}"/>'
        f'<text class="tick" x="{x:.1f}" y="{y + 17:.1f}">{_number(tick)}</text>'
    )


def _axis_titles(x_label: str, y_label: str, height: float) -> str:
    middle = (_TOP + height - _BOTTOM) / 2
    return (
        f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{height - _BOTTOM}" y2="{height - _BOTTOM}"/>'
        f'<text class="label" x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{height - 8}">{html.escape(x_label)}</text>'
        f'<text class="label" transform="translate(13 {middle:.1f}) rotate(-90)">{html.escape(y_label)}</text>'
    )


def _linear_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Returns about ``count`` multiples of 1, 2 or 5 times a power of ten, in [low, high]."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    return [index * step for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Returns 1, 2 and 5 (1 alone over three decades or more) times powers of ten, from below ``low`` to above ``high``."""
    factors = (1, 2, 5) if high < 1000 * low else (1,)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    ticks = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    begin = max(index for index, tick in enumerate(ticks) if tick <= low * (1 + 1e-9))
    end = min(index for index, tick in enumerate(ticks) if tick >= high * (1 - 1e-9))
    return ticks[begin : end + 1]


def _swarm(places: Sequence[float], middle: float, spacing: float, most: float) -> list[tuple[float, float]]:
    """Spreads dots that share a position vertically, by at most ``most`` each way."""
    columns: dict[int, list[float]] = {}
    for x in sorted(places):
        columns.setdefault(round(x / (2 * spacing)), []).append(x)
    moved = []
    for column in columns.values():
        distance = min(2 * spacing, 2 * most / max(len(column) - 1, 1))
        for index, x in enumerate(column):
            moved.append((x, middle + (index - (len(column) - 1) / 2) * distance))
    return moved


def _number(value: float) -> str:
    """Formats a tick's label: 20000 becomes 20k."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.6g}"
