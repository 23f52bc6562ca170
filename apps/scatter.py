"""A scatter chart as SVG: no script, no library, light and dark, every point says what it is.

Gradio's own chart keeps the colours of the data before when its data changes (6.31).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from apps.render import MODEL_COLOURS

_WIDTH, _HEIGHT = 900, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 12, 44
_STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True)
class Point:
    """One dot: where it is, which colour it shares, and what it says under the pointer."""

    x: float
    y: float
    group: str
    label: str


def scatter(points: Sequence[Point], x_title: str, y_title: str) -> str:
    """The chart as HTML; empty without points. Not finite ones are left out."""
    points = [point for point in points if math.isfinite(point.x) and math.isfinite(point.y)]
    if not points:
        return ""
    x_ticks = ticks([point.x for point in points])
    y_ticks = ticks([point.y for point in points])
    groups = list(dict.fromkeys(point.group for point in points))
    colours = {g: MODEL_COLOURS[i % len(MODEL_COLOURS)] for i, g in enumerate(groups)}
    lines = [_x_line(value, place(value, x_ticks, _LEFT, _WIDTH - _RIGHT)) for value in x_ticks]
    lines += [_y_line(value, place(value, y_ticks, _HEIGHT - _BOTTOM, _TOP)) for value in y_ticks]
    dots = [
        f'<circle cx="{place(point.x, x_ticks, _LEFT, _WIDTH - _RIGHT):.1f}" '
        f'cy="{place(point.y, y_ticks, _HEIGHT - _BOTTOM, _TOP):.1f}" r="6" '
        f'fill="{colours[point.group]}"><title>{escape(point.label)}</title></circle>'
        for point in points
    ]
    legend = "".join(
        f'<span><i style="background:{colour}"></i>{escape(group)}</span>'
        for group, colour in colours.items()
    )
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    return (
        f'<svg class="wb-chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(y_title)} / {escape(x_title)}">{"".join(lines)}{"".join(dots)}'
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">'
        f"{escape(x_title)}</text>"
        f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">'
        f'{escape(y_title)}</text></svg><div class="wb-legend">{legend}</div>'
    )


def ticks(values: Sequence[float], about: int = 6) -> list[float]:
    """Round numbers from below the least value to above the greatest, about ``about`` of them."""
    low, high = min(values), max(values)
    if low == high:
        low, high = (low - abs(low) / 10, high + abs(high) / 10) if low else (0.0, 1.0)
    rough = (high - low) / about
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in _STEPS if size * factor >= rough * (1 - 1e-9))
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def place(value: float, marks: Sequence[float], start: float, end: float) -> float:
    """Where ``value`` lies between ``start`` (the first mark) and ``end`` (the last)."""
    return start + (value - marks[0]) / (marks[-1] - marks[0]) * (end - start)


def _x_line(value: float, x: float) -> str:
    bottom = _HEIGHT - _BOTTOM
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}"/>'
        f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{value:g}</text>'
    )


def _y_line(value: float, y: float) -> str:
    return (
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
    )
