"""Leading a job about what is parked: the owners of staging partitions do the work, the leader adds it up.

Owns: when such a job has ended, what is told of the whole. Must not know: parking, who owns which partition.

A part is done where its partition is, so no part needs a lease: who has the partition goes on with what its former
owner told. A partition that nobody has is waited for.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping

from pipeline.redrive.job import JobState, Part, Wanted
from pipeline.redrive.lease import Lease

__all__ = ["coordinate"]

_LOOK_S = 0.2
_TELL_S = 1.0


async def coordinate(
    lease: Lease, partitions: Collection[int], parts: Callable[[], Mapping[int, Part]]
) -> None:
    """Lead until every one of these partitions has told the end of its part, or the job is paused or led by another.
    Raises what Kafka raises."""
    clock = lease.clock

    async def say(state: JobState, whole: _Whole) -> None:
        await lease.say(state, whole.total, whole.done, whole.held, error=whole.error)

    next_word = clock.monotonic()
    while (wanted := lease.wanted()) is not None:
        told = parts()
        whole = _Whole(told.values())
        if all(number in told and told[number].state.is_final for number in partitions):
            await say(whole.state, whole)
            return
        if wanted is Wanted.PAUSE:
            await say(JobState.PAUSED, whole)
            return
        if clock.monotonic() >= next_word:
            next_word = clock.monotonic() + _TELL_S
            await say(JobState.RUNNING, whole)
        await asyncio.sleep(_LOOK_S)


class _Whole:
    """What the parts make together."""

    def __init__(self, parts: Collection[Part]) -> None:
        self.done = sum(part.done for part in parts)
        self.held: Counter[str] = Counter()
        for part in parts:
            self.held.update(part.held)
        # What is chosen by more than its place is only known once it has been read.
        totals = [part.total for part in parts]
        self.total = None if not totals or None in totals else sum(filter(None, totals))
        self.error = next((part.error for part in parts if part.error), "")
        is_cancelled = any(part.state is JobState.CANCELLED for part in parts)
        self.state = JobState.CANCELLED if is_cancelled else JobState.DONE
