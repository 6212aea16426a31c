"""What a worker's gauges read when somebody asks: partitions, breakers, what is parked, dead letters, jobs (O4).

Owns: which of the worker's states become which samples. Must not know: Prometheus, pages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pipeline.application import Application
from pipeline.breaker import State
from pipeline.meter import UNKNOWN
from pipeline.metrics import (
    BREAKER,
    DEAD_BEHIND,
    DEAD_OPEN,
    JOB_DONE,
    JOB_LEFT,
    LAG,
    PARKED_NOW,
    READY,
    REREAD,
    WAITING,
    Sample,
)
from pipeline.park import is_skew
from pipeline.redrive.model import Overview
from pipeline.transport.readiness import Facts, Readiness

__all__ = ["samples"]

_LEVELS = {State.CLOSED: 0.0, State.HALF_OPEN: 1.0, State.OPEN: 2.0}


def samples(
    application: Application, facts: Facts, readiness: Readiness, dead: Overview | None
) -> Iterator[Sample]:
    """Every gauge. `dead`: the dead letters as they were seconds ago; None where nobody has looked yet."""
    yield READY, (), float(readiness.ready)
    yield REREAD, (), application.app.batches.jumps
    waiting = dict(readiness.waiting)
    for at in facts.partitions:
        partition = str(at.partition)
        if at.lag is not None:
            yield LAG, (partition,), at.lag
        yield WAITING, (partition,), float(at.partition in waiting)
    for target in application.targets():
        yield BREAKER, (target.target,), _LEVELS[target.state]
    yield from _parked(application)
    if dead is not None:
        yield DEAD_BEHIND, (), dead.behind
        for topic in dead.topics:
            yield DEAD_OPEN, (topic.topic,), topic.open
        yield from _jobs(application)


def _parked(application: Application) -> Iterator[Sample]:
    records: Counter[str] = Counter(dict.fromkeys(application.breakers, 0))
    for state in application.parked():
        records[UNKNOWN if is_skew(state.target) else state.target] += state.records
    for name, count in records.items():
        yield PARKED_NOW, (name,), count


def _jobs(application: Application) -> Iterator[Sample]:
    done: Counter[str] = Counter()
    left: Counter[str] = Counter()
    for job in application.dead_letters.jobs():
        if not job.state.is_final:
            done[job.kind] += job.done
            left[job.kind] += job.left or 0
    for kind, count in done.items():
        yield JOB_DONE, (kind,), count
        yield JOB_LEFT, (kind,), left[kind]
