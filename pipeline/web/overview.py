"""The page `/`: what needs attention, where the events are, how fast they go.

Owns: putting together what other parts say. Must not know: how any of them finds out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal
from urllib.parse import quote

from pydantic import BaseModel

from pipeline.breaker import State
from pipeline.clock import Clock
from pipeline.parking.breakers import TargetState
from pipeline.redrive.model import TopicSummary
from pipeline.transport.readiness import Readiness
from pipeline.web.charts import Chart, charts
from pipeline.web.history import Point
from pipeline.web.rendering import duration
from pipeline.web.route import Answer, Call, Route
from pipeline.web.vitals import Vitals

__all__ = ["Attention", "Overview", "attention", "routes"]


class Attention(BaseModel):
    """Something an operator should look at. `link`: where to."""

    level: Literal["bad", "warning"]
    text: str
    detail: str = ""
    link: str = ""


class PartitionNow(BaseModel):
    """A staging partition of this worker; `cause`: what it waits for, empty where it does not."""

    partition: int
    lag: int | None
    cause: str


class Overview(BaseModel):
    """How this worker is. `totals` count since it started; `points` are the last five minutes, oldest first."""

    ready: bool
    attention: list[Attention]
    totals: dict[str, float]
    lag: int | None
    parked: int
    dead: int
    """Open dead letters, of all workers."""
    dead_topics: list[TopicSummary]
    partitions: list[PartitionNow]
    points: list[Point]

    @property
    def charts(self) -> tuple[Chart, ...]:
        """The points drawn."""
        return charts(self.points)

    @property
    def last(self) -> Point | None:
        """The latest point."""
        return self.points[-1] if self.points else None


def routes(vitals: Vitals, clock: Clock) -> tuple[Route, ...]:
    """The page."""

    async def overview(call: Call) -> Answer:
        """How this worker is."""
        facts, readiness = vitals.facts(), vitals.readiness()
        targets = call.application.targets()
        causes = dict(readiness.waiting)
        partitions = [
            PartitionNow(partition=at.partition, lag=at.lag, cause=causes.get(at.partition, ""))
            for at in facts.partitions
        ]
        known = [at.lag for at in partitions if at.lag is not None]
        points = vitals.history.points
        dead = await call.application.dead_letters.overview()
        found = Overview(
            ready=readiness.ready,
            attention=list(attention(readiness, targets, dead.topics, clock.time())),
            totals=vitals.history.totals(),
            lag=sum(known) if known else None,
            parked=sum(parked.records for parked in call.application.parked()),
            dead=dead.open,
            dead_topics=[topic for topic in dead.topics if topic.open],
            partitions=partitions,
            points=list(points),
        )
        return Answer(found, "overview.html")

    return (Route("GET", "/", overview, "How this worker is.", Overview),)


def attention(
    readiness: Readiness, targets: Sequence[TargetState], dead: Sequence[TopicSummary], now: float
) -> Iterator[Attention]:
    """What an operator should look at, the worst first. `now`: seconds since 1970."""
    for reason in readiness.reasons:
        yield Attention(level="bad", text="This worker is not ready", detail=reason, link="/health/ready")
    waiting: defaultdict[str, list[int]] = defaultdict(list)
    for partition, cause in readiness.waiting:
        waiting[cause].append(partition)
    for cause, partitions in waiting.items():
        which = ", ".join(map(str, partitions))
        text = (
            f"Staging partition {which} waits" if len(partitions) == 1 else f"Staging partitions {which} wait"
        )
        yield Attention(level="bad", text=text, detail=cause)
    for target in targets:
        if target.state is not State.CLOSED:
            yield _of_target(target, now)
    for topic in sorted(dead, key=lambda topic: -topic.per_minute):
        recent = round(topic.per_minute * 5)
        if recent:
            text = f"{recent:,} new dead letter{'' if recent == 1 else 's'} in five minutes on {topic.topic}"
            yield Attention(level="warning", text=text, link=f"/dlq/{quote(topic.topic)}/")


def _of_target(target: TargetState, now: float) -> Attention:
    parked = f"; {target.parked_records:,} events parked behind it" if target.parked_records else ""
    for_s = duration(max(0.0, now - target.since))
    if target.paused_by:
        text = f"{target.target} is paused by {target.paused_by} for {for_s}{parked}"
        return Attention(level="warning", text=text, link=f"/breakers/#{target.target}")
    return Attention(
        level="bad",
        text=f"{target.target} takes nothing for {for_s}{parked}",
        detail=target.reason,
        link=f"/breakers/#{target.target}",
    )
