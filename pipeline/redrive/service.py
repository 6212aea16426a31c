"""Dead letters and jobs in one worker: the index, the records, the jobs, behind one façade.

Owns: putting the parts together, starting and ending them, the audit record of each change (O3). Must not know:
Faust, pages, commands, who may change anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from catalog import OwnTopics
from pipeline.audit import Entry, record_of
from pipeline.clock import Clock
from pipeline.ids import uuid7
from pipeline.kafka.cluster import Cluster
from pipeline.kafka.connection import Connection
from pipeline.redrive.index import Index
from pipeline.redrive.job import Job, JobKind, Order, TargetOrder, Wanted, WrongJobState
from pipeline.redrive.jobs import Jobs
from pipeline.redrive.reading import Reading
from pipeline.redrive.selection import Selection, WrongSelection
from pipeline.redrive.ship import ship_all
from pipeline.redrive.work import Work
from pipeline.settings import Settings

__all__ = ["Redrive"]

_MAX_RATE = 1_000_000.0


class Redrive(Reading):
    """Implements `DeadLetters` (`deadletters.py`). Bound to the event loop it is opened on.

    `on_target` is called for what is to be done about a target; `worker` is this worker's name in the log.
    """

    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        own: Cluster,
        topics: OwnTopics,
        clock: Clock,
        worker: str,
        on_target: Callable[[TargetOrder], None],
    ) -> None:
        index = Index(connection, topics, Path(settings.effective_data_dir))
        super().__init__(index, connection, clock, settings.max_redrives)
        self._own = own
        self._topics = topics
        self._jobs = Jobs(connection, own, topics, clock, worker, on_target)
        self._work = Work(settings, connection, own, topics, clock, worker, index, self._jobs, self._audit)

    async def open(self) -> None:
        """Begin to read the index and to follow jobs; their topics exist. Does not wait for either."""
        await super().open()
        await self._jobs.start(self._work.lead)

    async def close(self) -> None:
        """End everything; jobs led here go on elsewhere. Idempotent."""
        await self._jobs.close()
        await super().close()

    async def caught_up(self) -> None:
        """Wait until everything that is on the topics of index and jobs now is known here; without limit."""
        await super().caught_up()
        await self._jobs.caught_up()

    @property
    def log(self) -> Jobs:
        """The log of all jobs, for those who carry out parts of them."""
        return self._jobs

    async def start_parked(
        self, kind: JobKind, selection: Selection, *, by: str, reason: str, count: int
    ) -> Job:
        """Order a job about what is parked: `topic` is what it is parked under, `count` what it was seen to meet."""
        partitions = await self._own.producer.partitions(self._topics.staging)
        if selection.partition is not None and selection.partition >= partitions:
            raise WrongSelection("partition", f"staging has {partitions}, counted from 0")
        return await self._order(kind, selection, by, 0.0, reason, count)

    async def start(
        self, kind: JobKind, selection: Selection, *, by: str, rate: float = 0.0, reason: str = ""
    ) -> Job:
        """Order a job."""
        selection.check()
        if not (math.isfinite(rate) and 0 <= rate <= _MAX_RATE):
            raise WrongSelection("rate", f"{rate} is not a number of events a second up to {_MAX_RATE:,.0f}")
        if kind is JobKind.SCAN and not self._may_be_scanned(selection.topic):
            raise WrongSelection("topic", "a scan needs the name of one topic that holds dead letters")
        count = None if kind is JobKind.SCAN else (await self.preview(selection)).count
        return await self._order(kind, selection, by, rate, reason, count)

    async def _order(
        self, kind: JobKind, selection: Selection, by: str, rate: float, reason: str, count: int | None
    ) -> Job:
        order = Order(
            job=uuid7(),
            kind=kind,
            selection=selection.as_text(),
            rate=rate,
            by=by,
            reason=reason,
            at=self._clock.time(),
            count=count,
        )
        facts: dict[str, JsonValue] = {"selection": dict(order.selection), "rate": rate, "reason": reason}
        if count is not None:
            facts["count"] = count
        await self._audit(f"{kind}.ordered", by, order.job, facts)
        await self._jobs.tell(order)
        await self._jobs.caught_up()
        return self.job(order.job)

    def jobs(self) -> Sequence[Job]:
        """All jobs, newest first."""
        return self._jobs.board.jobs()

    def job(self, job_id: str) -> Job:
        """One job."""
        return self._jobs.board.job(job_id)

    async def pause(self, job_id: str, *, by: str) -> Job:
        """Let a job wait."""
        return await self._want(job_id, Wanted.PAUSE, by)

    async def resume(self, job_id: str, *, by: str) -> Job:
        """Let a paused job go on."""
        return await self._want(job_id, Wanted.RUN, by)

    async def cancel(self, job_id: str, *, by: str) -> Job:
        """End a job."""
        return await self._want(job_id, Wanted.CANCEL, by)

    async def order_target(self, target: str, want: Literal["pause", "resume", "reset"], *, by: str) -> None:
        """Let every worker pause, resume or reset a target; a pause stands over restarts. Done here, and durable, at
        return; the audit record is the caller's."""
        await self._jobs.tell(TargetOrder(target=target, want=want, by=by, at=self._clock.time()))
        await self._jobs.caught_up()

    async def _want(self, job_id: str, want: Wanted, by: str) -> Job:
        job = self.job(job_id)
        if job.state.is_final:
            raise WrongJobState(job_id, job.state)
        await self._audit(f"job.{want}", by, job_id, {"done": job.done})
        await self._jobs.tell(self._jobs.board.order(job_id).model_copy(update={"want": want}))
        await self._jobs.caught_up()
        return self.job(job_id)

    def _may_be_scanned(self, topic: str | None) -> bool:
        own = self._topics
        return topic is not None and (topic == own.staging_dlq or not own.is_own(topic))

    async def _audit(self, action: str, by: str, subject: str, facts: Mapping[str, JsonValue]) -> None:
        entry = Entry(action, by, self._clock.time(), subject, facts)
        await ship_all(self._own, self._topics.audit, [record_of(entry)])
