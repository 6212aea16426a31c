"""A job as it is led here in one epoch: what is wanted of it, and what its leader tells.

Owns: progress and the audit record of the end. Must not know: how a job is done, who else wants to lead it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from pipeline.clock import Clock
from pipeline.redrive.job import Job, JobState, Progress, Wanted
from pipeline.redrive.model import Coordinates

__all__ = ["Lease"]


@dataclass(frozen=True, slots=True)
class Lease:
    """One epoch of one job. `wanted`: what the operator wants now, None once another worker leads; `tell` writes to
    the log of jobs, `audit` an audit record of the job's end (O3): its state, how many, how many left by reason."""

    job: Job
    epoch: int
    worker: str
    clock: Clock
    wanted: Callable[[], Wanted | None]
    tell: Callable[[Progress], Awaitable[None]]
    audit: Callable[[JobState, int, Mapping[str, int]], Awaitable[None]]

    async def say(
        self,
        state: JobState,
        total: int | None,
        done: int,
        held: Mapping[str, int],
        after: Coordinates | None = None,
        error: str = "",
    ) -> None:
        """Tell how far the job is, also as a sign of life; an end is audited first. Durable at return; raises what
        Kafka raises."""
        if state.is_final:
            await self.audit(state, done, held)
        await self.tell(
            Progress(
                job=self.job.id,
                epoch=self.epoch,
                worker=self.worker,
                state=state,
                total=total,
                done=done,
                held=dict(held),
                after=after,
                at=self.clock.time(),
                error=error,
            )
        )
