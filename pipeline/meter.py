"""What a delivery counts: how records ended, and how long events took from stage() to their target (O4).

Owns: which metric each end adds to, when an event's way began. Must not know: how anything is delivered.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pipeline import staging
from pipeline.clock import Clock
from pipeline.dlq import Failure
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
from pipeline.park import is_skew
from pipeline.plan import Column
from pipeline.record import ReadRecord
from pipeline.tracing import DeliverySpans

__all__ = ["UNKNOWN", "Meter"]

UNKNOWN = "(unknown)"
"""Stands in metrics for what is parked because no worker knows it: its names have no bound."""

_OUTBOX_S = 3_600.0
"""A stage-time that lies further before the staging record's own time was given by the caller: it says when
something happened, not when it was staged."""


class Meter:
    """Counts ends. Call it once for what ends together."""

    def __init__(self, metrics: Metrics, clock: Clock, spans: DeliverySpans | None = None) -> None:
        self._metrics = metrics
        self._clock = clock
        self._spans = spans
        self._ways: dict[str, Histogram] = {}

    def consumed(self, count: int) -> None:
        """So many staging records were taken up."""
        self._metrics.add(CONSUMED, count)

    def delivered(self, column: Column, first: int, count: int, records: Sequence[ReadRecord]) -> None:
        """`count` of a column, from the `first` on, which waited longest, were acknowledged by their target.

        `records`: the staging records that the column was made from.
        """
        target, now = column.route.topic, self._clock.time()
        if first:
            oldest = records[column.sources[first]]
            began = _began(dict(oldest.headers)[staging.TIME], oldest.timestamp)
        else:
            began = _began(column.staged_at, column.written_at)
        self._metrics.add(DELIVERED, count, target)
        way = self._ways.get(target)
        if way is None:
            way = self._ways[target] = self._metrics.histogram(WAY_SECONDS, target)
        way.observe(max(0.0, now - began), count)
        if self._spans is not None:
            headers = (records[index].headers for index in column.sources[first : first + count])
            self._spans.delivered(target, headers, count, min(began, now), now)

    def dead_lettered(self, topic: str, failure: Failure) -> None:
        """One record was acknowledged by a dead-letter topic."""
        self._metrics.add(DEAD_LETTERED, 1, topic, failure.error_class, failure.disposition)

    def parked(self, name: str, count: int) -> None:
        """`count` records were acknowledged by the parked topic, under this name."""
        self._metrics.add(PARKED, count, UNKNOWN if is_skew(name) else name)

    def skipped(self, failure: Failure) -> None:
        """One record ended as an audit record."""
        self._metrics.add(SKIPPED, 1, failure.error_class)


def _began(staged_at: bytes | None, written_at: int) -> float:
    """When an event's way began: at its stage-time, so that time in an outbox counts; else at its record's time."""
    written = written_at / 1000
    try:
        staged = datetime.fromisoformat((staged_at or b"").decode()).timestamp()
    except ValueError:
        return written
    return staged if written - _OUTBOX_S <= staged <= written else written
