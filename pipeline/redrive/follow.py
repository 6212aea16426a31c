"""Following topics of ours beside the worker's group, from where one left off, on and on.

Owns: reading, trying again, knowing how far behind it is. Must not know: what the records mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from pipeline.kafka.connection import Connection
from pipeline.kafka.reader import Bounds, Place, Reader

__all__ = ["Fetched", "Follower"]

log = logging.getLogger(__name__)

_RECORDS = 5_000
_FETCH_S = 2.0
"""How long to wait for records: what comes is handed on at once, and each look costs where none do."""
_FEW = 500
_PAUSE_S = 1.0

Fetched = Mapping[Place, Sequence[Any]]


class Follower:
    """Reads topics and hands every record on, in the order of its partition. Bound to one event loop.

    `begin` is given what the topics hold, and says from which offsets on to read: after each connecting, so that
    it may be asked for records again. `take_in` is awaited before more is read; where it raises, reading begins
    anew. `rest_s`: how long to rest behind few records, so that more come together.
    """

    def __init__(
        self,
        connection: Connection,
        topics: Sequence[str],
        begin: Callable[[Mapping[Place, Bounds]], Awaitable[Mapping[Place, int]]],
        take_in: Callable[[Fetched], Awaitable[None]],
        rest_s: float = 0.0,
    ) -> None:
        self._connection = connection
        self._topics = topics
        self._begin = begin
        self._take_in = take_in
        self._rest_s = rest_s
        self._next: dict[Place, int] = {}
        self._ends: dict[Place, int] = {}
        self._moved = asyncio.Condition()
        self._reads = 0
        self._looking: Reader | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def behind(self) -> int:
        """How many records have not been taken in, of those that were there at the last look."""
        return sum(max(0, end - self._next.get(place, 0)) for place, end in self._ends.items())

    def position(self, place: Place) -> int:
        """The offset behind what was taken in."""
        return self._next.get(place, 0)

    async def news(self, seen: int, timeout_s: float | None = None) -> int:
        """Wait until something was read after `seen`, or for `timeout_s`. Out: the `seen` of the next call; first 0."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._moved:
                await self._moved.wait_for(lambda: self._reads != seen)
        return self._reads

    async def start(self) -> None:
        """Begin to follow. Does not wait for anything to be read."""
        self._task = asyncio.create_task(self._run(), name=f"follow {self._topics[0]}")

    async def close(self) -> None:
        """Stop. What was handed on is taken in first. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def caught_up(self) -> None:
        """Wait until everything that is on the topics now has been taken in; without limit."""
        while True:
            async with self._moved:
                await self._moved.wait_for(lambda: self._looking is not None)
            if await self._looked_at_ends():
                break
            await asyncio.sleep(_PAUSE_S)
        ends = dict(self._ends)
        async with self._moved:
            await self._moved.wait_for(
                lambda: all(self._next.get(place, 0) >= end for place, end in ends.items())
            )

    async def _looked_at_ends(self) -> bool:
        if (looking := self._looking) is None:
            return False
        try:
            bounds = await looking.all_bounds(self._topics)
        except Exception as error:  # noqa: BLE001 -- whoever waits for the end waits for Kafka
            log.warning("follow.no_ends topics=%s error=%r", ",".join(self._topics), error)
            return False
        self._ends = {place: found.end for place, found in bounds.items()}
        return True

    async def _run(self) -> None:
        while True:
            try:
                # Kafka answers a connection in order: what is asked of the reader's own waits for its fetch.
                reading = Reader(self._connection, wait_s=_FETCH_S)
                async with reading as reader, Reader(self._connection) as looking:
                    await self._follow(reader, looking)
            except Exception as error:  # noqa: BLE001 -- a broker, a disk: it may be well again
                log.warning("follow.failed topics=%s error=%r", ",".join(self._topics), error)
            finally:
                self._looking = None
            await asyncio.sleep(_PAUSE_S)

    async def _follow(self, reader: Reader, looking: Reader) -> None:
        bounds = await looking.all_bounds(self._topics)
        self._ends = {place: found.end for place, found in bounds.items()}
        self._next = dict(await self._begin(bounds))
        reader.read_from(self._next)
        self._looking = looking
        while True:
            fetched = await reader.fetch(_RECORDS, _FETCH_S)
            rests = self._rest_s > 0 and 0 < sum(map(len, fetched.values())) < _FEW
            if rests:
                # What lies with aiokafka is not part of its next fetch. One for all the others, on which nothing comes,
                # would be held back by the broker, and then a second's records come at once.
                reader.pause(*self._next)
            if fetched:
                await self._take_in(fetched)
            async with self._moved:
                for place in self._next:
                    self._next[place] = await reader.position(place)
                self._reads += bool(fetched)
                self._moved.notify_all()
            if rests:
                await asyncio.sleep(self._rest_s)
                reader.resume(*self._next)
