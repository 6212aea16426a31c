"""What an operator should look at, the worst first: the head of the overview. Pure.

Owns: what counts as such, and its wording. Must not know: who finds out, how it is shown.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal
from urllib.parse import quote

from pydantic import BaseModel

from pipeline.breaker import State
from pipeline.park import ParkedState, is_skew
from pipeline.parking.breakers import TargetState
from pipeline.redrive.job import Job, JobState
from pipeline.redrive.model import TopicSummary
from pipeline.transport.readiness import Readiness
from pipeline.web.rendering import duration

__all__ = ["Attention", "attention"]

_MOST_OF_A_KIND = 8
_RECENT_MIN = 5
_FAILED_S = 24 * 3600.0


class Attention(BaseModel):
    """Something an operator should look at. `link`: where to."""

    level: Literal["bad", "warning"]
    text: str
    """What is wrong: the same words for as long as it is, so that a screen reader says it once."""
    facts: str = ""
    """Since when and how many, as of now."""
    detail: str = ""
    """Why."""
    link: str = ""


def attention(
    readiness: Readiness,
    targets: Sequence[TargetState],
    parked: Sequence[ParkedState],
    topics: Sequence[TopicSummary],
    jobs: Sequence[Job],
    now: float,
) -> Iterator[Attention]:
    """What an operator should look at, the worst first. `topics`: of dead letters. `now`: seconds since 1970."""
    for reason in readiness.reasons:
        yield Attention(level="bad", text="This worker is not ready", detail=reason, link="/health/ready")
    yield from _waiting(readiness)
    yield from _targets(targets, now)
    yield from _unknown(parked, now)
    yield from _jobs(jobs, now)
    yield from _dead(topics)


def _waiting(readiness: Readiness) -> Iterator[Attention]:
    waiting: defaultdict[str, list[int]] = defaultdict(list)
    for partition, cause in readiness.waiting:
        waiting[cause].append(partition)
    for cause, partitions in waiting.items():
        which = ", ".join(map(str, sorted(partitions)))
        text = (
            f"Staging partition {which} waits" if len(partitions) == 1 else f"Staging partitions {which} wait"
        )
        yield Attention(level="bad", text=text, detail=cause)


def _targets(targets: Sequence[TargetState], now: float) -> Iterator[Attention]:
    shut = [target for target in targets if target.state is not State.CLOSED]
    shut.sort(key=lambda target: (bool(target.paused_by), -target.parked_records, target.target))
    for target in shut[:_MOST_OF_A_KIND]:
        parked = f", {_count(target.parked_records, 'event')} parked" if target.parked_records else ""
        by = target.paused_by
        yield Attention(
            level="warning" if by else "bad",
            text=f"{target.target} is paused by {by}" if by else f"{target.target} takes nothing",
            facts=f"for {duration(max(0.0, now - target.since))}{parked}",
            detail="" if by else target.reason,
            link=f"/breakers/#{quote(target.target)}",
        )
    if more := shut[_MOST_OF_A_KIND:]:
        what = "target is shut too" if len(more) == 1 else "targets are shut too"
        level: Literal["bad", "warning"] = "warning" if all(one.paused_by for one in more) else "bad"
        yield Attention(level=level, text=f"{len(more):,} more {what}", link="/breakers/")


def _unknown(parked: Sequence[ParkedState], now: float) -> Iterator[Attention]:
    unknown = [state for state in parked if is_skew(state.target)]
    if not unknown:
        return
    names = sorted({state.target for state in unknown})
    more = f" and {len(names) - _MOST_OF_A_KIND:,} more" if len(names) > _MOST_OF_A_KIND else ""
    count, oldest = sum(state.records for state in unknown), min(state.oldest_at for state in unknown)
    yield Attention(
        level="warning",
        text="Events wait for a worker that knows what they are",
        facts=f"{_count(count, 'event')} parked, for {duration(max(0.0, now - oldest))}",
        detail=", ".join(names[:_MOST_OF_A_KIND]) + more,
        link="/breakers/#unknown",
    )


def _jobs(jobs: Sequence[Job], now: float) -> Iterator[Attention]:
    for job in jobs:
        ended = job.updated_at if job.updated_at is not None else job.created_at
        if job.state is JobState.FAILED and now - ended < _FAILED_S:
            yield Attention(
                level="warning",
                text=f"A {job.kind} ordered by {job.by} failed",
                facts=f"{duration(max(0.0, now - ended))} ago",
                detail=job.error,
                link=f"/jobs/{job.id}/",
            )


def _dead(topics: Sequence[TopicSummary]) -> Iterator[Attention]:
    growing = sorted((topic for topic in topics if _recent(topic)), key=lambda topic: -topic.per_minute)
    for topic in growing[:_MOST_OF_A_KIND]:
        yield Attention(
            level="warning",
            text=f"New dead letters on {topic.topic}",
            facts=f"{_recent(topic):,} in five minutes, {topic.open:,} open",
            link=f"/dlq/{quote(topic.topic)}/",
        )
    if more := growing[_MOST_OF_A_KIND:]:
        yield Attention(
            level="warning", text=f"New dead letters on {_count(len(more), 'more topic')}", link="/dlq/"
        )
    if still := [topic for topic in topics if topic.open and not _recent(topic)]:
        yield Attention(
            level="warning",
            text="Dead letters wait to be redriven or discarded",
            facts=f"{sum(topic.open for topic in still):,} on {_count(len(still), 'topic')}, none new in five minutes",
            link=f"/dlq/{quote(still[0].topic)}/" if len(still) == 1 else "/dlq/",
        )


def _recent(topic: TopicSummary) -> int:
    return round(topic.per_minute * _RECENT_MIN)


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
