"""Line charts as SVG, drawn with nothing but string formatting: the pictures of the documentation need no library."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

WIDTH, HEIGHT = 760, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 58, 44
COLOURS = ("#c0392b", "#2471a3", "#229954", "#af7ac5", "#7f8c8d")
Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A named curve; `dashed` for limits and targets, `step` for what changes in jumps."""

    label: str
    points: Sequence[Point]
    dashed: bool = False
    step: bool = False


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round numbers from `low` to `high`, about `count` of them."""
    raw = (high - low) / count or 1.0
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * size for factor in (1, 2, 5, 10) if factor * size >= raw)
    return [step * number for number in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def draw(title: str, x: str, y: str, lines: Sequence[Line], shaded: Iterable[tuple[float, float, str]] = ()) -> str:
    """A chart as the text of an SVG file.

    Args:
        title: above the picture.
        x, y: what the axes show, with units.
        lines: the curves; a colour each, in this order.
        shaded: stretches of the x axis to mark, as (from, to, label).
    """
    every = [point for line in lines for point in line.points]
    x_low, x_high = min(point[0] for point in every), max(point[0] for point in every)
    y_high = max(point[1] for point in every) * 1.08 or 1.0
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(point: Point) -> Point:
        return LEFT + (point[0] - x_low) / (x_high - x_low) * across, TOP + down - point[1] / y_high * down

    def text(x: float, y: float, words: str, more: str = "") -> str:
        return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(words)}</text>'

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12" fill="#333"><rect width="100%" height="100%" fill="#fff"/>',
        text(LEFT, 20, title, 'font-size="15" font-weight="bold"'),
    ]
    for start, end, label in shaded:
        left, right = at((start, 0))[0], at((end, 0))[0]
        parts.append(f'<rect x="{left:.1f}" y="{TOP}" width="{right - left:.1f}" height="{down}" fill="#f4ecd8"/>')
        parts.append(text(left + 4, TOP + 14, label, 'fill="#8a6d3b"'))
    for value in ticks(0, y_high):
        _, height = at((x_low, value))
        parts.append(f'<path d="M{LEFT} {height:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(text(LEFT - 6, height + 4, f"{value:,.6g}", 'text-anchor="end"'))
    for value in ticks(x_low, x_high, 8):
        parts.append(text(at((value, 0))[0], HEIGHT - BOTTOM + 16, f"{value:,.6g}", 'text-anchor="middle"'))
    parts.append(text(LEFT + across / 2, HEIGHT - 8, x, 'text-anchor="middle"'))
    middle = TOP + down / 2
    parts.append(text(14, middle, y, f'text-anchor="middle" transform="rotate(-90 14 {middle})"'))
    for number, line in enumerate(lines):
        colour, dash = COLOURS[number % len(COLOURS)], ' stroke-dasharray="6 4"' if line.dashed else ""
        points = line.points
        if line.step:  # only where it changes, and the end
            points = [points[0], *(b for a, b in pairwise(points) if a[1] != b[1]), points[-1]]
        (first, *rest), pattern = map(at, points), "H{:.1f}V{:.1f}" if line.step else "L{:.1f} {:.1f}"
        path = "M{:.1f} {:.1f}".format(*first) + "".join(pattern.format(*point) for point in rest)
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.8"{dash}/>')
        left = LEFT + number * across / len(lines)
        parts.append(f'<path d="M{left:.1f} 38h18" stroke="{colour}" stroke-width="3"{dash}/>')
        parts.append(text(left + 24, 42, line.label))
    return "\n".join([*parts, "</svg>\n"])
