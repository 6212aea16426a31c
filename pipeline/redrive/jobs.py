"""The jobs of a worker: it reads the log of all jobs, claims those that want a leader, and leads those it got.

Owns: reading and writing `<ns>.jobs`, one task for each job led here. Must not know: what a job does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from aiokafka.errors import KafkaError

from catalog import OwnTopics
from pipeline.clock import Clock
from pipeline.errors import StagerClosed
from pipeline.kafka.cluster import Cluster
from pipeline.kafka.connection import Connection
from pipeline.kafka.reader import Bounds, Place
from pipeline.redrive.board import Board
from pipeline.redrive.follow import Fetched, Follower
from pipeline.redrive.job import Claim, Job, JobState, Progress, TargetOrder, Told, Wanted, read_told
from pipeline.redrive.ship import ship_all

__all__ = ["Jobs", "Lead"]

log = logging.getLogger(__name__)

_LOOK_S = 1.0
_PAUSE_S = 3.0

Lead = Callable[[Job, int], Awaitable[None]]
"""Leads a job in an epoch, until it has ended or is led no more."""


class Jobs:
    """Follows the log. `on_target` is called for what is to be done about a target: of old orders only for the
    pauses that stand. Bound to one event loop."""

    def __init__(
        self,
        connection: Connection,
        own: Cluster,
        topics: OwnTopics,
        clock: Clock,
        worker: str,
        on_target: Callable[[TargetOrder], None],
    ) -> None:
        self.board = Board()
        self._own = own
        self._topic = topics.jobs
        self._clock = clock
        self._worker = worker
        self._on_target = on_target
        self._follower = Follower(connection, (topics.jobs,), self._begin, self._take_in)
        self._old_ends: dict[Place, int] = {}
        self._leading: dict[str, tuple[int, asyncio.Task[None]]] = {}
        self._claimed: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self, lead: Lead) -> None:
        """Begin to follow. Does not wait. `lead` is called in a task of its own for each job led here."""
        await self._follower.start()
        self._task = asyncio.create_task(self._look_after(lead), name="stagepost-jobs")

    async def close(self) -> None:
        """Stop leading; another worker takes over. Idempotent."""
        tasks = {task for _, task in self._leading.values()}
        if self._task is not None:
            tasks.add(self._task)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._follower.close()

    async def caught_up(self) -> None:
        """Wait until everything that is told now has been read."""
        await self._follower.caught_up()

    async def news(self, seen: int) -> int:
        """Wait, without limit, until something was read after `seen`. Out: the `seen` of the next call; first 0."""
        return await self._follower.news(seen)

    async def tell(self, told: Told) -> None:
        """Write to the log; durable at return."""
        await ship_all(self._own, self._topic, [told.record()], 0)

    def wanted(self, job_id: str, epoch: int) -> Wanted | None:
        """What is wanted of a job that this worker leads; None once it does not."""
        if not self.board.leads(job_id, epoch, self._worker):
            return None
        return self.board.order(job_id).want

    async def _begin(self, bounds: Mapping[Place, Bounds]) -> Mapping[Place, int]:
        if not self._old_ends:
            self._old_ends = {place: found.end for place, found in bounds.items()}
            return {place: found.first for place, found in bounds.items()}
        return {place: self._follower.position(place) for place in bounds}

    async def _take_in(self, fetched: Fetched) -> None:
        for place, records in fetched.items():
            for record in records:
                told = read_told(record.value)
                if isinstance(told, TargetOrder):
                    if told.want != "reset" or record.offset >= self._old_ends.get(place, 0):
                        self._on_target(told)
                elif told is not None:
                    self.board.take(told, self._clock.monotonic())

    async def _look_after(self, lead: Lead) -> None:
        await self._follower.caught_up()
        seen = 0
        while True:
            try:
                await self._claim()
                self._take_over(lead)
            except Exception as error:  # noqa: BLE001 -- a broker: it may be well again
                log.warning("jobs.not_read error=%r", error)
            seen = await self._follower.news(seen, _LOOK_S)

    async def _claim(self) -> None:
        claimable = self.board.claimable(self._clock.monotonic())
        self._claimed = {job: epoch for job, epoch in self._claimed.items() if claimable.get(job) == epoch}
        for job_id, epoch in claimable.items():
            if self._claimed.get(job_id) != epoch:
                self._claimed[job_id] = epoch
                await self.tell(Claim(job=job_id, epoch=epoch, worker=self._worker))

    def _take_over(self, lead: Lead) -> None:
        for job_id, (_, task) in list(self._leading.items()):
            if task.done():
                del self._leading[job_id]
        for job_id, epoch in self.board.led_by(self._worker).items():
            if job_id not in self._leading:
                task = asyncio.create_task(self._lead_one(lead, job_id, epoch), name=f"job {job_id}")
                self._leading[job_id] = (epoch, task)

    async def _lead_one(self, lead: Lead, job_id: str, epoch: int) -> None:
        log.info("job.led job=%s epoch=%d", job_id, epoch)
        while self.wanted(job_id, epoch) is not None:
            try:
                await lead(self.board.job(job_id), epoch)
                break
            except StagerClosed:
                return
            except (KafkaError, OSError, TimeoutError) as error:
                log.warning("job.waits job=%s error=%r", job_id, error)
                await asyncio.sleep(_PAUSE_S)
            except Exception as error:
                log.exception("job.failed job=%s", job_id)
                await self._fail(self.board.job(job_id), epoch, error)
                break
        await self.caught_up()  # with its own last word: only then does it not look as if it were led here

    async def _fail(self, job: Job, epoch: int, error: Exception) -> None:
        await self.tell(
            Progress(
                job=job.id,
                epoch=epoch,
                worker=self._worker,
                state=JobState.FAILED,
                total=job.total,
                done=job.done,
                held=job.held,
                after=job.after,
                at=self._clock.time(),
                error=f"{type(error).__name__}: {error}"[:1_000],
            )
        )
