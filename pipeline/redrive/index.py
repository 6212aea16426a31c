"""The index of dead letters of one worker, kept up to date from its two topics and from where dead letters begin.

Owns: who writes the store, and in which thread. Must not know: what is asked of it (`queries.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path

from catalog import OwnTopics
from pipeline.kafka.connection import Connection
from pipeline.kafka.reader import Bounds, Place
from pipeline.redrive.follow import Fetched, Follower
from pipeline.redrive.forget import Forgetter
from pipeline.redrive.queries import Queries
from pipeline.redrive.store import Store

__all__ = ["Index"]

log = logging.getLogger(__name__)

_REST_S = 0.25
"""How long the index rests behind few records: of a trickle each transaction costs as much as thirty records."""


class Index:
    """Opened by `start`, closed by `close`; in between `queries` answers, as far as was read."""

    def __init__(self, connection: Connection, topics: OwnTopics, folder: Path) -> None:
        self._topics = topics
        self._store = Store(folder, topics.namespace)
        self.queries = Queries(self._store.path)
        self._follower = Follower(
            connection, (topics.dlq_index, topics.dlq_state), self._begin, self._take_in, _REST_S
        )
        self._forgetter = Forgetter(connection, self._store, self._follower.caught_up)

    @property
    def behind(self) -> int:
        """How many records of the topics have not been read yet."""
        return self._follower.behind

    async def start(self) -> None:
        """Begin to read. Does not wait."""
        await self._follower.start()
        await self._forgetter.start()

    async def caught_up(self) -> None:
        """Wait until everything that is on the topics now is in the index, and, after `start`, until what the topics
        of dead letters have deleted is not, as far as Kafka could be asked."""
        await self._follower.caught_up()
        await self._forgetter.looked()

    async def close(self) -> None:
        """Stop reading, close the files. Idempotent."""
        await self._forgetter.close()
        await self._follower.close()
        # In a thread: what was under way when reading was cancelled is still under way.
        await asyncio.to_thread(self.queries.close)
        await asyncio.to_thread(self._store.close)

    async def _begin(self, bounds: Mapping[Place, Bounds]) -> Mapping[Place, int]:
        known = await asyncio.to_thread(self._store.next_offsets)
        if any(known.get(place, 0) > found.end for place, found in bounds.items()):
            log.warning("index.outdated -- its topics are gone; it is read anew")
            self.queries.close()
            await asyncio.to_thread(self._store.begin_anew)
            known = {}
        return {place: max(found.first, known.get(place, 0)) for place, found in bounds.items()}

    async def _take_in(self, fetched: Fetched) -> None:
        values: dict[str, list[bytes]] = {self._topics.dlq_index: [], self._topics.dlq_state: []}
        read_up_to: dict[tuple[str, int], int] = {}
        for place, records in fetched.items():
            values[place.topic] += [record.value for record in records if record.value is not None]
            read_up_to[place] = records[-1].offset + 1
        letters, endings = values.values()
        spoilt = await asyncio.to_thread(self._store.take_in, letters, endings, read_up_to)
        if spoilt:
            log.error("index.spoilt records=%d topics=%s", spoilt, ",".join(values))
