"""What the worker did in the last minutes, for the charts of the overview.

Owns: one sample of the metrics every two seconds, and what is derived from two of them. Must not know: pages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from pydantic import BaseModel

from pipeline.metrics import (
    CONSUMED,
    DEAD_LETTERED,
    DELIVERED,
    PARKED,
    SKIPPED,
    WAY_SECONDS,
    Histogram,
    Metrics,
)

__all__ = ["EVERY_S", "History", "Point"]

EVERY_S = 2.0
_KEPT = 150


class Point(BaseModel):
    """Two seconds of work. Rates are records a second; durations seconds, None where nothing was delivered."""

    at: float
    delivered: float
    dead_lettered: float
    parked: float
    p50: float | None
    p99: float | None
    lag: int | None
    waiting: int
    """Partitions that wait for a named cause."""
    parked_now: int
    """Events parked at that time, of this worker's partitions."""


class History:
    """The last five minutes."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._points: deque[Point] = deque(maxlen=_KEPT)
        self._last: tuple[float, dict[str, float], Histogram] | None = None

    @property
    def points(self) -> Sequence[Point]:
        """Oldest first."""
        return tuple(self._points)

    def sample(self, monotonic: float, at: float, *, lag: int | None, waiting: int, parked: int) -> None:
        """Take a sample: the clock's two readings, and what the consumer says."""
        totals = self.totals()
        way = self._metrics.merged(WAY_SECONDS)
        if self._last is not None:
            before, were, way_before = self._last
            passed = max(monotonic - before, 0.001)
            rates = {name: max(0.0, total - were[name]) / passed for name, total in totals.items()}
            since = Histogram(way.bounds)
            since.counts = [now - was for now, was in zip(way.counts, way_before.counts, strict=True)]
            point = Point(
                at=at,
                delivered=rates["delivered"],
                dead_lettered=rates["dead_lettered"],
                parked=rates["parked"],
                p50=since.quantile(0.5),
                p99=since.quantile(0.99),
                lag=lag,
                waiting=waiting,
                parked_now=parked,
            )
            self._points.append(point)
        self._last = (monotonic, totals, way)

    def totals(self) -> dict[str, float]:
        """How many records have ended how since the worker started."""
        total = self._metrics.total
        return {
            "consumed": total(CONSUMED),
            "delivered": total(DELIVERED),
            "dead_lettered": total(DEAD_LETTERED),
            "parked": total(PARKED),
            "skipped": total(SKIPPED),
        }
