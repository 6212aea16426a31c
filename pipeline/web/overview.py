"""The page `/`: what needs attention, where the events are, how fast they go.

Owns: putting together what other parts say. Must not know: how any of them finds out.
"""

from __future__ import annotations

from pydantic import BaseModel

from pipeline.clock import Clock
from pipeline.redrive.model import TopicSummary
from pipeline.web.attention import Attention, attention
from pipeline.web.charts import Chart, charts
from pipeline.web.history import Point
from pipeline.web.route import Answer, Call, Route
from pipeline.web.vitals import Vitals

__all__ = ["Overview", "routes"]


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
    behind: int
    """Records of their index that this worker has not read yet."""
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
        parked, jobs = call.application.parked(), call.application.dead_letters.jobs()
        dead = await call.application.dead_letters.overview()
        found = Overview(
            ready=readiness.ready,
            attention=list(attention(readiness, targets, parked, dead.topics, jobs, clock.time())),
            totals=vitals.history.totals(),
            lag=sum(known) if known else None,
            parked=sum(state.records for state in parked),
            dead=dead.open,
            behind=dead.behind,
            dead_topics=[topic for topic in dead.topics if topic.open],
            partitions=partitions,
            points=list(points),
        )
        return Answer(found, "overview.html")

    return (Route("GET", "/", overview, "How this worker is.", Overview),)
