"""The page `/`: what needs attention, where the events are, how fast they go.

Owns: putting together what other parts say. Must not know: how any of them finds out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import BaseModel

from pipeline.transport.readiness import Readiness
from pipeline.web.history import Point
from pipeline.web.route import Answer, Call, Route
from pipeline.web.vitals import Vitals

__all__ = ["Attention", "Overview", "routes"]


class Attention(BaseModel):
    """Something an operator should look at. `link`: where to."""

    level: Literal["bad", "warning"]
    text: str
    detail: str = ""
    link: str = ""


class PartitionNow(BaseModel):
    """A staging partition of this worker."""

    partition: int
    lag: int | None
    cause: str


class Overview(BaseModel):
    """How this worker is. Totals count since it started; `points` are the last five minutes, oldest first."""

    ready: bool
    attention: list[Attention]
    totals: dict[str, float]
    lag: int | None
    partitions: list[PartitionNow]
    points: list[Point]


def routes(vitals: Vitals) -> tuple[Route, ...]:
    """The page."""

    async def overview(call: Call) -> Answer:
        """How this worker is."""
        del call
        facts, readiness = vitals.facts(), vitals.readiness()
        causes = dict(readiness.waiting)
        partitions = [
            PartitionNow(partition=at.partition, lag=at.lag, cause=causes.get(at.partition, ""))
            for at in facts.partitions
        ]
        known = [at.lag for at in partitions if at.lag is not None]
        found = Overview(
            ready=readiness.ready,
            attention=list(attention(readiness, vitals.history.points)),
            totals=vitals.history.totals(),
            lag=sum(known) if known else None,
            partitions=partitions,
            points=list(vitals.history.points),
        )
        return Answer(found, "overview.html")

    return (Route("GET", "/", overview, "How this worker is.", Overview),)


def attention(readiness: Readiness, points: Sequence[Point]) -> Iterator[Attention]:
    """What an operator should look at, the worst first."""
    for reason in readiness.reasons:
        yield Attention(level="bad", text="This worker is not ready", detail=reason, link="/health/ready")
    waiting: defaultdict[str, list[int]] = defaultdict(list)
    for partition, cause in readiness.waiting:
        waiting[cause].append(partition)
    for cause, partitions in waiting.items():
        which = ", ".join(map(str, partitions))
        many = "partition" if len(partitions) == 1 else "partitions"
        yield Attention(level="bad", text=f"Staging {many} {which} wait", detail=cause)
    dead = sum(point.dead_lettered for point in points[-30:]) * 2
    if dead >= 1:
        yield Attention(
            level="warning", text=f"{dead:,.0f} new dead letters in the last minute", link="/dlq/"
        )
