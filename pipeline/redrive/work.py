"""What the leader of a job does, by the kind of the job.

Owns: giving each job its own reader of records, the loop of a scan. Must not know: who leads what.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from pydantic import JsonValue

from catalog import OwnTopics
from pipeline.clock import Clock
from pipeline.kafka.cluster import Cluster
from pipeline.kafka.connection import Connection
from pipeline.kafka.producer import ProducerOptions
from pipeline.redrive.coordinate import coordinate
from pipeline.redrive.index import Index
from pipeline.redrive.job import Job, JobKind, JobState, Wanted
from pipeline.redrive.jobs import Jobs
from pipeline.redrive.lead import Leader
from pipeline.redrive.lease import Lease
from pipeline.redrive.page import Pages
from pipeline.redrive.records import Records
from pipeline.redrive.scan import NOT_A_DEAD_LETTER, scan
from pipeline.settings import Settings

__all__ = ["Work"]

_CLOSE_S = 1.0

Audit = Callable[[str, str, str, Mapping[str, JsonValue]], Awaitable[None]]


class Work:
    """Leads the jobs of one worker."""

    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        own: Cluster,
        topics: OwnTopics,
        clock: Clock,
        worker: str,
        index: Index,
        jobs: Jobs,
        audit: Audit,
    ) -> None:
        self._settings = settings
        self._connection = connection
        self._own = own
        self._topics = topics
        self._clock = clock
        self._worker = worker
        self._index = index
        self._jobs = jobs
        self._audit = audit

    async def lead(self, job: Job, epoch: int) -> None:
        """Lead a job until it has ended, is paused, or another worker leads it. Raises what Kafka raises."""
        lease = Lease(
            job,
            epoch,
            self._worker,
            self._clock,
            lambda: self._jobs.wanted(job.id, epoch),
            self._jobs.tell,
            lambda state, done, held: self._ended(job, state, done, held),
        )
        if job.kind is JobKind.SCAN:
            await self._scan(lease)
        elif job.kind.is_about_parked:
            await self._coordinate(lease)
        else:
            async with Records(self._connection) as records, self._writer() as writer:
                pages = Pages(writer, self._topics, self._clock, records, self._settings.max_redrives)
                await Leader(lease, self._index, pages).lead()

    @asynccontextmanager
    async def _writer(self) -> AsyncIterator[Cluster]:
        """A producer for one job. On the worker's own, live events would linger and queue behind what a job sends."""
        settings = self._settings
        options = ProducerOptions(0.0, settings.batch_max_bytes, settings.compression)
        writer = await Cluster.start(self._connection, options, settings, self._clock)
        try:
            yield writer
        finally:
            await writer.close(_CLOSE_S)

    async def _coordinate(self, lease: Lease) -> None:
        await self._jobs.caught_up()  # what of it has ended is not waited for
        count = await self._own.producer.partitions(self._topics.staging)
        wanted = lease.job.selection.partition
        numbers = range(count) if wanted is None else (wanted,)
        await coordinate(lease, numbers, lambda: self._jobs.board.parts(lease.job.id))

    async def _scan(self, lease: Lease) -> None:
        """A scan begins anew each time it is led: what is in the index already costs it only the reading."""
        await self._index.caught_up()
        total = done = alien = 0
        state = JobState.DONE

        async def say(state: JobState) -> None:
            await lease.say(state, total, done, {NOT_A_DEAD_LETTER: alien} if alien else {})

        topic = lease.job.selection.topic or ""
        async for read, known, others in scan(
            topic, self._connection, self._own, self._topics, self._index.queries
        ):
            total, done, alien = total + read, done + known, alien + others
            wanted = lease.wanted()
            if wanted is None:
                return
            if wanted is not Wanted.RUN:
                state = JobState.PAUSED if wanted is Wanted.PAUSE else JobState.CANCELLED
                break
            await say(JobState.RUNNING)
        await say(state)

    async def _ended(self, job: Job, state: JobState, done: int, held: Mapping[str, int]) -> None:
        facts: dict[str, JsonValue] = {
            "selection": dict(job.selection.as_text()),
            "count": done,
            "held": dict(held),
            "reason": job.reason,
        }
        await self._audit(f"{job.kind}.{state}", job.by, job.id, facts)
