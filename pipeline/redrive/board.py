"""The board of jobs: what the log of `<ns>.jobs` says, read in its one order. Pure.

Owns: who leads which job, which may be claimed, when a leader counts as dead. Must not know: Kafka, what a job
does. The clock is handed in.

All workers read the same order, so all agree who leads without asking each other: of several claims to an epoch
the first counts, and none counts while a job that may touch the same dead letters is led. A leader that has not
been heard of for `LEASE_S` may be followed by another; where it lives all the same, it finds that out from the
log, and at most what it had under way is done twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.redrive.job import Claim, Job, JobState, NoSuchJob, Order, Part, Progress, Wanted
from pipeline.redrive.model import Coordinates
from pipeline.redrive.selection import Selection

__all__ = ["LEASE_S", "Board"]

LEASE_S = 15.0
_KEPT = 200
"""Ended jobs that are remembered; the oldest are forgotten first."""


@dataclass(slots=True)
class _Entry:
    order: Order
    selection: Selection
    epoch: int = 0
    leader: str = ""
    """Empty: nobody leads it."""
    progress: Progress | None = None
    parts: dict[int, Part] = field(default_factory=dict)
    heard_at: float = 0.0

    @property
    def is_final(self) -> bool:
        return self.progress is not None and self.progress.state.is_final


class Board:
    """All jobs. Not safe from several threads."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def take(self, told: Order | Claim | Progress | Part, now: float) -> None:
        """Read the next record of the log; `now` is monotonic."""
        entry = self._entries.get(told.job)
        if isinstance(told, Order):
            if entry is None:
                self._entries[told.job] = _Entry(told, Selection.parse(told.selection))
                self._forget_old()
            else:
                entry.order = told
        elif entry is not None:
            if isinstance(told, Claim):
                self._claimed(entry, told, now)
            elif isinstance(told, Part):
                _parted(entry, told)
            else:
                _progressed(entry, told, now)

    def jobs(self) -> list[Job]:
        """All jobs, newest first."""
        return [_job(entry) for entry in reversed(self._entries.values())]

    def job(self, job_id: str) -> Job:
        """One job. Raises `NoSuchJob`."""
        return _job(self._of(job_id))

    def order(self, job_id: str) -> Order:
        """As it was ordered last. Raises `NoSuchJob`."""
        return self._of(job_id).order

    def parts(self, job_id: str) -> Mapping[int, Part]:
        """What the owners of staging partitions have told of their parts. Raises `NoSuchJob`."""
        return self._of(job_id).parts

    def errands(self) -> list[Job]:
        """The jobs about what is parked that are led now: owners of staging partitions carry out their parts."""
        entries = self._entries.values()
        return [_job(entry) for entry in entries if entry.order.kind.is_about_parked and entry.leader]

    def leads(self, job_id: str, epoch: int, worker: str) -> bool:
        """Whether this worker leads a job in this epoch, as far as the log was read."""
        entry = self._entries.get(job_id)
        return entry is not None and (entry.epoch, entry.leader) == (epoch, worker)

    def led_by(self, worker: str) -> dict[str, int]:
        """The jobs that a worker leads, and in which epoch."""
        return {name: entry.epoch for name, entry in self._entries.items() if entry.leader == worker}

    def claimable(self, now: float) -> dict[str, int]:
        """The jobs that want a leader, and the epoch to claim."""
        found = {}
        for job_id, entry in self._entries.items():
            is_alive = bool(entry.leader) and now - entry.heard_at < LEASE_S
            rests = entry.order.want is Wanted.PAUSE and not entry.leader
            wants_one = not entry.is_final and not rests
            if wants_one and not is_alive and self._is_free(entry):
                found[job_id] = entry.epoch + 1
        return found

    def _claimed(self, entry: _Entry, claim: Claim, now: float) -> None:
        if claim.epoch == entry.epoch + 1 and not entry.is_final and self._is_free(entry):
            entry.epoch, entry.leader, entry.heard_at = claim.epoch, claim.worker, now

    def _is_free(self, entry: _Entry) -> bool:
        """Whether no other job that may touch the same letters is led, or is older and wants to be."""
        is_older = True
        for other in self._entries.values():
            if other is entry:
                is_older = False
                continue
            wants = is_older and not other.is_final and other.order.want is not Wanted.PAUSE
            if (other.leader or wants) and _may_meet(entry, other):
                return False
        return True

    def _forget_old(self) -> None:
        ended = [name for name, entry in self._entries.items() if entry.is_final]
        for name in ended[: max(0, len(ended) - _KEPT)]:
            del self._entries[name]

    def _of(self, job_id: str) -> _Entry:
        try:
            return self._entries[job_id]
        except KeyError:
            raise NoSuchJob(job_id) from None


def _parted(entry: _Entry, part: Part) -> None:
    former = entry.parts.get(part.partition)
    if former is None or not former.state.is_final:  # else a former owner, who does not know that it is none
        entry.parts[part.partition] = part


def _progressed(entry: _Entry, progress: Progress, now: float) -> None:
    if progress.epoch < entry.epoch:
        return  # a leader that does not know yet that it is none
    entry.epoch, entry.leader, entry.progress, entry.heard_at = progress.epoch, progress.worker, progress, now
    if progress.state is not JobState.RUNNING:
        entry.leader = ""


def _may_meet(one: _Entry, other: _Entry) -> bool:
    if one.order.kind.is_about_parked != other.order.kind.is_about_parked:
        return False
    topics = {one.selection.topic, other.selection.topic}
    return None in topics or len(topics) == 1


def _job(entry: _Entry) -> Job:
    order, progress = entry.order, entry.progress
    if progress is not None and progress.state.is_final:
        state = progress.state
    elif entry.leader:
        state = JobState.RUNNING
    else:
        state = JobState.PAUSED if order.want is Wanted.PAUSE else JobState.WAITING
    total = progress.total if progress else None
    if total is None and order.kind.is_about_parked:
        total = order.count
    return Job(
        id=order.job,
        kind=order.kind,
        selection=entry.selection,
        rate=order.rate,
        by=order.by,
        reason=order.reason,
        created_at=order.at,
        state=state,
        want=order.want,
        total=total,
        done=progress.done if progress else 0,
        held=progress.held if progress else {},
        after=Coordinates(*progress.after) if progress and progress.after else None,
        leader=entry.leader,
        updated_at=progress.at if progress else None,
        error=progress.error if progress else "",
    )
