"""How long an event's way was: from which moment it is counted, and what counts of those that end together (O4)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from pipeline.clock import rfc3339
from pipeline.meter import Meter
from pipeline.metrics import WAY_SECONDS, Histogram, Metrics
from pipeline.plan import Column
from pipeline.testing.clock import SteppingClock
from tests.core.staged_records import Staged, router

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)


def record(written_ago_s: float, staged_ago_s: float | None, text: bytes | None = None) -> Staged:
    """One that was written so long ago and says that it was staged so long ago."""
    if staged_ago_s is not None:
        text = rfc3339(NOW.timestamp() - staged_ago_s).encode()
    return Staged([("stage-time", text)], timestamp=int((NOW.timestamp() - written_ago_s) * 1000))


def ways_of(records: Sequence[Staged], *, from_the: int) -> Histogram:
    """What is counted where a column of these records is acknowledged from one of them on."""
    route = router().route(b"order.created")
    assert route is not None
    column = Column(route, dict(records[0].headers)["stage-time"] or b"", records[0].timestamp)
    column.sources += range(len(records))
    metrics = Metrics()
    Meter(metrics, SteppingClock(NOW)).delivered(column, from_the, len(records) - from_the, records)
    return metrics.histogram(WAY_SECONDS, route.topic)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (record(1, 3), 3),  # two seconds in the service, or in its outbox
        (record(1, 3_601), 3_601),
        (record(1, 3_602), 1),  # the caller says when something happened
        (record(2, 1), 2),  # staged after it was written: a clock that is wrong
        (record(2, None, b"yesterday"), 2),
        (record(2, None), 2),
        (record(-5, None), 0),
    ],
)
def test_where_an_events_way_begins(given: Staged, seconds: float) -> None:
    """O4: at its stage-time; one more than an hour before the record's own is the caller's, and the record's counts."""
    assert ways_of([given], from_the=0).sum == pytest.approx(seconds, abs=0.002)


def test_the_longest_way_counts_for_all_that_end_together() -> None:
    """O4: of events acknowledged together the first has waited longest, and each counts with its time."""
    found = ways_of([record(9, None), record(4, None), record(2, None)], from_the=1)
    assert sum(found.counts) == 2
    assert found.sum == pytest.approx(8, abs=0.004)
