"""Errands: jobs about what is parked, carried out by each worker in the staging partitions that it has.

Owns: which part is due here, up to where it goes, what is told of it. Must not know: who leads a job, how a pass
reads and ends what it reads.

What a part is about is told before anything is done: all that was parked when its owner came to it. Who has the
partition next goes on up to there. A part ends once, with the last of its events, when it is noted where its partition
stands: what was told to have ended is not parked any more. What of it was under way in a crash is done again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from catalog import OwnTopics
from pipeline.detour import Detour
from pipeline.kept import moved_on
from pipeline.park import Choice, is_skew
from pipeline.parking.backlog import Backlog
from pipeline.parking.learn import OpenReader
from pipeline.parking.look import Look, look
from pipeline.parking.parking import Parking
from pipeline.parking.sweep import Chunk
from pipeline.redrive.job import Job, JobKind, JobState, NoSuchJob, Part, Wanted
from pipeline.redrive.jobs import Jobs

__all__ = ["Errands"]

log = logging.getLogger(__name__)

_LOOK_S = 0.2
_LOOKS_TO_TELL = 5
_AGAIN_S = 1.0
_READY_S = 5.0
_STILL_PARKED = "still_parked"


@dataclass(frozen=True, slots=True)
class _Due:
    """A part that is to be carried out, and what is left of it; None: nothing."""

    part: Part
    backlog: Backlog | None


class Errands:
    """The errands of one worker. Bound to one event loop; `worker`: its name in the log of jobs."""

    def __init__(
        self,
        jobs: Jobs,
        parking: Parking,
        detour: Detour,
        topics: OwnTopics,
        open_reader: OpenReader,
        worker: str,
    ) -> None:
        self._jobs = jobs
        self._parking = parking
        self._detour = detour
        self._topics = topics
        self._open_reader = open_reader
        self._worker = worker
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look for errands."""
        self._task = asyncio.create_task(self._look_out(), name="stagepost-errands")

    async def close(self) -> None:
        """End at once; whoever has the partitions next goes on. Idempotent."""
        tasks = [task for task in (self._task, *self._under_way.values()) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)

    async def look(self, name: str, choice: Choice, partition: int | None) -> Look:
        """What an errand would meet, in all staging partitions or one, whoever has them; see `Look`."""
        return await look(self._open_reader(), self._topics, name, choice, partition)

    async def _look_out(self) -> None:
        seen = 0
        while True:
            errands = self._jobs.board.errands()
            for job in errands:
                if job.id not in self._under_way and job.want is not Wanted.PAUSE and self._numbers(job):
                    task = asyncio.create_task(self._run(job), name=f"errand {job.id}")
                    self._under_way[job.id] = task
                    task.add_done_callback(lambda _, job_id=job.id: self._under_way.pop(job_id, None))  # type: ignore[misc]
            if errands:  # partitions come and go
                await asyncio.sleep(_LOOK_S)
            else:
                seen = await self._jobs.news(seen)

    async def _run(self, job: Job) -> None:
        try:
            if job.want is Wanted.CANCEL:
                parts = [self._parts(job).get(n) or self._begun(job, n) for n in self._numbers(job)]
                for part in parts:
                    await self._tell(part, state=JobState.CANCELLED)
            else:
                await self._carry_out(job)
            await self._jobs.caught_up()  # with its own words: only then does it not begin anew
        except Exception:
            log.exception("errand.failed job=%s", job.id)
            await asyncio.sleep(_AGAIN_S)

    async def _carry_out(self, job: Job) -> None:
        name = job.selection.topic or ""
        bounds: dict[Backlog, int] = {}
        parts: dict[Backlog, Part] = {}
        for number in self._numbers(job):
            due = await self._due(job, number)
            if due is None:
                continue
            if due.backlog is None:
                if await self._parking.noted(number):
                    await self._tell(due.part, state=JobState.DONE, total=due.part.done)
            elif due.backlog.drained_by is None:
                bounds[due.backlog], parts[due.backlog] = due.part.upto, due.part
        if not bounds:
            await asyncio.sleep(_LOOK_S)
            return
        if job.kind is JobKind.RELEASE and not await self._is_ready(name):
            for part in parts.values():
                await self._refuse(part, f"{name} is not known to this worker")
            return
        log.info("errand.begun job=%s kind=%s name=%r partitions=%d", job.id, job.kind, name, len(bounds))
        await self._pass(job, bounds, parts)

    async def _due(self, job: Job, number: int) -> _Due | None:
        """A part, told; None where the partition has gone meanwhile."""
        part = self._parts(job).get(number)
        if part is None and number in self._parking.partitions:
            part = self._begun(job, number)
            await self._jobs.tell(part)
        partition = self._parking.partitions.get(number)
        if part is None or partition is None:
            return None
        backlog = partition.get(job.selection.topic or "")
        if backlog is None or backlog.cursor is None or backlog.cursor.first >= part.upto:
            return _Due(part, None)
        return _Due(part, backlog)

    async def _pass(self, job: Job, bounds: Mapping[Backlog, int], parts: Mapping[Backlog, Part]) -> None:
        free = {backlog: upto for backlog, upto in bounds.items() if self._is_free(backlog)}
        if not free or self._parking.drainer.stopped:
            await asyncio.sleep(_LOOK_S)
            return
        choice = _choice(job)
        sweep, task = self._parking.drainer.carry_out(free, choice, lambda chunk: self._deliver(job, chunk))
        done = {backlog: parts[backlog].done for backlog in free}

        async def tell(backlog: Backlog, state: JobState, held: int = 0) -> None:
            count = done[backlog] + sweep.ended[backlog]
            total = count if state is JobState.DONE and not held else parts[backlog].total
            error = sweep.failures.get(backlog.name, "") if held else ""
            held_by = {_STILL_PARKED: held} if held else {}
            await self._tell(parts[backlog], state=state, done=count, total=total, held=held_by, error=error)

        told, looks = dict.fromkeys(free, 0), 0
        while not task.done():
            await asyncio.wait({task}, timeout=_LOOK_S)
            if not self._goes_on(job):
                sweep.stop("the job is not to go on")
            looks += 1
            for backlog in free if looks % _LOOKS_TO_TELL == 0 else ():
                if sweep.ended[backlog] != told[backlog] and not task.done():
                    told[backlog] = sweep.ended[backlog]
                    await tell(backlog, JobState.RUNNING)
        if task.cancelled():
            return  # the partitions are somebody else's
        refused = job.kind is JobKind.RELEASE and task.result() and self._goes_on(job)
        for backlog in free:
            if not await self._parking.noted(backlog.partition):
                continue  # this one is
            if backlog in sweep.through:
                await tell(backlog, JobState.DONE)
            elif refused and backlog.name in sweep.failures:
                await tell(backlog, JobState.DONE, max(1, backlog.records))
            else:
                await tell(backlog, JobState.RUNNING)
        if not task.result():
            await asyncio.sleep(_AGAIN_S)

    def _deliver(self, job: Job, chunk: Chunk) -> str:
        if job.kind is JobKind.RELEASE:
            return self._detour.drain(chunk)
        backlog = chunk.backlog
        failure = moved_on(backlog.name, backlog.reason, by=job.by, why=job.reason)
        return self._detour.move_on(chunk, failure)

    async def _is_ready(self, name: str) -> bool:
        """Whether it is known where to deliver what is parked under a name, soon."""
        for _ in range(round(_READY_S / _LOOK_S)):
            if self._detour.is_ready(name):
                return True
            if is_skew(name):
                return False
            await asyncio.sleep(_LOOK_S)
        return False

    async def _refuse(self, part: Part, error: str) -> None:
        left = max(1, (part.total or 0) - part.done)
        await self._tell(part, state=JobState.DONE, held={_STILL_PARKED: left}, error=error)

    def _is_free(self, backlog: Backlog) -> bool:
        partition = self._parking.partitions.get(backlog.partition)
        is_there = partition is not None and partition.get(backlog.name) is backlog
        return is_there and backlog.drained_by is None

    def _goes_on(self, job: Job) -> bool:
        if self._parking.drainer.stopped:
            return False
        return any(found.id == job.id and found.want is Wanted.RUN for found in self._jobs.board.errands())

    def _numbers(self, job: Job) -> list[int]:
        """The partitions that this worker has and in which the job has not ended."""
        wanted, parts = job.selection.partition, self._parts(job)
        return [
            number
            for number in self._parking.partitions
            if wanted in {None, number} and not (number in parts and parts[number].state.is_final)
        ]

    def _parts(self, job: Job) -> Mapping[int, Part]:
        try:
            return self._jobs.board.parts(job.id)
        except NoSuchJob:
            return {}

    def _begun(self, job: Job, number: int) -> Part:
        backlog = self._parking.partitions[number].get(job.selection.topic or "")
        cursor = None if backlog is None else backlog.cursor
        upto, total = (0, 0) if cursor is None else (cursor.last + 1, cursor.records)
        return Part(
            job=job.id,
            partition=number,
            worker=self._worker,
            state=JobState.RUNNING,
            upto=upto,
            total=total if cursor is None or _choice(job).is_all else None,
        )

    async def _tell(self, part: Part, **facts: object) -> None:
        await self._jobs.tell(part.model_copy(update={"worker": self._worker, **facts}))


def _choice(job: Job) -> Choice:
    return Choice(job.selection.tenant, job.selection.definition)
