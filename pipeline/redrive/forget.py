"""Forgetting dead letters that are not on their topics any more: retention, or somebody, has deleted them.

Owns: when Kafka is asked where those topics begin, and how much is forgotten at once. Must not know: the tables.

What a topic says of itself now decides, and nothing is remembered of it: a topic that is gone, or of which nobody can
tell, forgets nothing; one that was made anew begins at offset 0, and what is below its own beginning later was on
neither of the two.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from pipeline.kafka.connection import Connection
from pipeline.kafka.firsts import first_offsets
from pipeline.redrive.store import Store

__all__ = ["Forgetter"]

log = logging.getLogger(__name__)

_EVERY_S = 60.0
_ASK_S = 20.0
_CHUNK = 1_000
"""How many letters are forgotten in one transaction: what is read of the topics waits for it meanwhile."""
_CHUNKS = 20
"""After so many it is asked again: a topic may have been deleted and made anew since."""


class Forgetter:
    """Looks once a minute, first when `caught_up` returns, so that a new index begins with what there is. Bound to
    one event loop."""

    def __init__(
        self, connection: Connection, store: Store, caught_up: Callable[[], Awaitable[None]]
    ) -> None:
        self._connection = connection
        self._store = store
        self._caught_up = caught_up
        self._looked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look. Does not wait."""
        self._task = asyncio.create_task(self._run(), name="forget dead letters")

    async def looked(self) -> None:
        """Wait until the first look has ended, also where it was in vain; without limit."""
        await self._looked.wait()

    async def close(self) -> None:
        """Stop. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        while True:
            try:
                await self._caught_up()
                count = 0
                while forgotten := await self._look():
                    count += forgotten
                if count:
                    log.info("index.forgotten records=%d -- their topics have deleted them", count)
            except Exception as error:  # noqa: BLE001 -- a broker, a disk: it may be well again
                log.warning("index.forgets_nothing error=%r", error)
            self._looked.set()
            await asyncio.sleep(_EVERY_S)

    async def _look(self) -> int:
        """Forget some of what is gone; how many records that were, 0 where nothing is left of it."""
        topics = await asyncio.to_thread(self._store.topics)
        if not topics:
            return 0
        async with asyncio.timeout(_ASK_S):
            firsts = await first_offsets(self._connection, topics)
        gone: dict[tuple[str, int], int] = {place: first for place, first in firsts.items() if first > 0}
        count = 0
        for _ in range(_CHUNKS):
            forgotten = await asyncio.to_thread(self._store.forget, gone, _CHUNK)
            count += forgotten
            if forgotten < _CHUNK:
                break
        return count
