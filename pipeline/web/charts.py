"""Small line charts as the points of SVG polylines. Pure.

Owns: scaling, gaps. Must not know: what is drawn, templates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.web.history import Point

__all__ = ["HEIGHT", "WIDTH", "Chart", "Line", "charts"]

WIDTH = 300
HEIGHT = 60
_SLOTS = 150


@dataclass(frozen=True, slots=True)
class Line:
    """One line: where it breaks off, the next segment begins."""

    name: str
    now: float | None
    segments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart over the last five minutes. `unit`: `rate`, `seconds` or `records`; `top`: what its upper edge is."""

    title: str
    unit: str
    top: float
    lines: tuple[Line, ...]


def charts(points: Sequence[Point]) -> tuple[Chart, ...]:
    """The charts of the overview."""
    return (
        _chart("Delivered a second", "rate", points, (("delivered", lambda p: p.delivered),)),
        _chart(
            "Stage to target",
            "seconds",
            points,
            (("half of all", lambda p: p.p50), ("99 %", lambda p: p.p99)),
        ),
        _chart("Not yet committed", "records", points, (("lag", lambda p: p.lag),)),
        _chart("Parked", "records", points, (("parked now", lambda p: p.parked_now),)),
        _chart(
            "Parked and dead a second",
            "rate",
            points,
            (("parked", lambda p: p.parked), ("dead", lambda p: p.dead_lettered)),
        ),
    )


def _chart(
    title: str,
    unit: str,
    points: Sequence[Point],
    named: Sequence[tuple[str, Callable[[Point], float | None]]],
) -> Chart:
    series = [(name, [value(point) for point in points]) for name, value in named]
    top = max((value for _, values in series for value in values if value is not None), default=0.0)
    return Chart(title, unit, top, tuple(_line(name, values, top) for name, values in series))


def _line(name: str, values: Sequence[float | None], top: float) -> Line:
    offset = _SLOTS - len(values)
    segments: list[list[str]] = [[]]
    for index, value in enumerate(values):
        if value is None:
            segments.append([])
            continue
        x = (offset + index) * WIDTH / (_SLOTS - 1)
        y = HEIGHT - 1 - (value / top if top else 0.0) * (HEIGHT - 4)
        segments[-1].append(f"{x:.1f},{y:.1f}")
    drawn = tuple(" ".join(segment if len(segment) > 1 else segment * 2) for segment in segments if segment)
    return Line(name, values[-1] if values else None, drawn)
