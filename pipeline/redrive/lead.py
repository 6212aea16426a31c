"""Leading one job: page after page, at its rate, until it is through, or is wanted no more.

Owns: the loop, the rate, what is told of the progress. Must not know: how a page is dealt with, who leads what.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.redrive.index import Index
from pipeline.redrive.job import Job, JobState, Wanted
from pipeline.redrive.lease import Lease
from pipeline.redrive.model import Coordinates
from pipeline.redrive.pace import PAGE_S, Pace, page_size, part_size
from pipeline.redrive.page import Pages
from pipeline.redrive.selection import LetterState, Selection

__all__ = ["Leader", "fitting", "selection_of"]

_TELL_S = 1.0
_AHEAD = 4_000
"""How many letters the index is asked for at once; with a rate, a page: a thread that makes thousands of rows keeps
the event loop from its turns."""
_PAGE_BYTES = 4 << 20


def fitting(sizes: Sequence[int], most: int) -> int:
    """How many of these, in their order, are together no larger than `most`; at least one."""
    count, total = 0, 0
    for size in sizes:
        total += size
        if count and total > most:
            break
        count += 1
    return count


def selection_of(job: Job) -> Selection:
    """What a job selects: open letters that had failed when it was ordered, so that it never meets its own."""
    until = job.selection.until_at
    until = job.created_at if until is None else min(until, job.created_at)
    return replace(job.selection, until_at=until, state=LetterState.OPEN)


@dataclass(slots=True)
class _Standing:
    """How far the leader is."""

    total: int
    done: int
    held: Counter[str]
    after: Coordinates | None


class Leader:
    """Leads one redrive or discard in one epoch."""

    def __init__(self, lease: Lease, index: Index, pages: Pages) -> None:
        self._lease = lease
        self._index = index
        self._pages = pages
        job = lease.job
        self._standing = _Standing(job.total or 0, job.done, Counter(job.held), job.after)
        self._told_at = -math.inf

    async def lead(self) -> None:
        """Lead until the job has ended, is paused, or another leads it. Raises what Kafka raises."""
        job, standing, queries = self._lease.job, self._standing, self._index.queries
        clock, now_wanted = self._lease.clock, self._lease.wanted
        await self._index.caught_up()  # what others have ended is not done again
        selection = selection_of(job)
        standing.done = await asyncio.to_thread(queries.ended_by, job.id)
        if job.total is None:
            preview = await asyncio.to_thread(queries.preview, selection, 1)
            standing.total = standing.done + preview.count
        await self._say(JobState.RUNNING)
        window, at_once, due = page_size(job.rate), part_size(job.rate), clock.monotonic()
        ahead = window if job.rate > 0 else _AHEAD
        while (wanted := now_wanted()) is Wanted.RUN:
            letters = await asyncio.to_thread(queries.in_staged_order, selection, standing.after, ahead)
            if not letters:
                await self._say(JobState.DONE)
                return
            while letters and now_wanted() is Wanted.RUN:
                page = letters[: fitting([letter.size for letter in letters[:window]], _PAGE_BYTES)]
                letters = letters[len(page) :]
                time_s = len(page) / job.rate if job.rate > 0 else 0.0
                pace = Pace(clock, due, min(PAGE_S, time_s))
                count, held = await self._pages.deal_with(job, page, pace, at_once)
                standing.done += count
                standing.held.update(held)
                standing.after = Coordinates(page[-1].topic, page[-1].partition, page[-1].offset)
                if job.rate > 0:  # what was missed is not made up for
                    due = max(due, clock.monotonic() - PAGE_S) + time_s
                await self._rest(due)
        if wanted is Wanted.PAUSE:
            await self._say(JobState.PAUSED)
        elif wanted is Wanted.CANCEL:
            await self._say(JobState.CANCELLED)

    async def _rest(self, until: float) -> None:
        """Wait for the next page, giving signs of life."""
        while self._lease.wanted() is Wanted.RUN:
            now = self._lease.clock.monotonic()
            if now - self._told_at >= _TELL_S:
                await self._say(JobState.RUNNING)
            if now >= until:
                return
            await asyncio.sleep(min(_TELL_S, until - now))

    async def _say(self, state: JobState) -> None:
        self._told_at = self._lease.clock.monotonic()
        standing = self._standing
        await self._lease.say(state, standing.total, standing.done, standing.held, standing.after)
