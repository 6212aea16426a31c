"""Plots as SVG: bars with their spread, lines over a load; both on a logarithmic scale. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from benchmarks.results import Spread

__all__ = ["bars", "lines"]

_COLOURS = ("#3b6fb6", "#4fa36c", "#d68f2a", "#b8423f", "#7a5aa6")
_FONT = 'font-family="sans-serif" font-size="12"'


def bars(title: str, rows: Sequence[tuple[str, Spread]]) -> str:
    """One bar for each row, as long as its median, with a line from the least to the most."""
    left, width, height = 420, 400, 40 + 28 * len(rows)
    scale = _Scale([value for _, spread in rows for value in (spread.least, spread.most)], width)
    parts = [f'<text x="8" y="20" font-weight="bold">{escape(title)}</text>']
    for index, (name, one) in enumerate(rows):
        y = 36 + 28 * index
        label = escape(name.replace("`", "").replace("**", ""))
        parts += [
            f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{label}</text>',
            f'<rect x="{left}" y="{y}" width="{scale(one.median):.1f}" height="18" fill="{_COLOURS[0]}"/>',
            f'<path d="M{left + scale(one.least):.1f} {y + 9}H{left + scale(one.most):.1f}" stroke="#000"/>',
            f'<text x="{left + scale(one.most) + 6:.1f}" y="{y + 13}">{one.median:,.1f}</text>',
        ]
    return _svg(left + width + 80, height, parts)


def lines(title: str, axis: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """One line for each series of (x, y); y is logarithmic."""
    left, top, width, height = 60, 40, 560, 300
    points = [point for one in series.values() for point in one]
    most = max(x for x, _ in points)
    scale = _Scale([y for _, y in points], height)
    parts = [f'<text x="8" y="20" font-weight="bold">{escape(title)}</text>']
    for tick in scale.ticks():
        y = top + height - scale(tick)
        parts.append(f'<path d="M{left} {y:.1f}h{width}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for (name, one), colour in zip(series.items(), _COLOURS, strict=False):
        at = [(left + x / most * width, top + height - scale(y)) for x, y in one]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in at]
        parts.append(
            f'<text x="{at[-1][0] + 8:.1f}" y="{at[-1][1] + 4:.1f}" fill="{colour}">{escape(name)}</text>'
        )
    first = next(iter(series.values()))
    parts += [
        f'<text x="{left + x / most * width:.1f}" y="{top + height + 18}" text-anchor="middle">{x:,.0f}</text>'
        for x, _ in first
    ]
    parts.append(
        f'<text x="{left + width / 2}" y="{top + height + 38}" text-anchor="middle">{escape(axis)}</text>'
    )
    return _svg(left + width + 80, top + height + 50, parts)


class _Scale:
    """Values to pixels, logarithmically, from the power of ten below the least to the one above the most."""

    def __init__(self, values: Sequence[float], pixels: float) -> None:
        self._from = math.floor(math.log10(max(min(values), 1e-3)))
        self._to = math.ceil(math.log10(max(values)) + 1e-9)
        self._pixels = pixels

    def __call__(self, value: float) -> float:
        return (math.log10(max(value, 1e-3)) - self._from) / (self._to - self._from) * self._pixels

    def ticks(self) -> list[float]:
        return [10.0**power for power in range(self._from, self._to + 1)]


def _svg(width: int, height: int, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" {_FONT}>\n'
        f'<rect width="100%" height="100%" fill="#fff"/>\n{body}\n</svg>\n'
    )
