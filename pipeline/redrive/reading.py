"""Looking at dead letters: every question that changes nothing, from the index and from the topics.

Owns: asking the index in a thread, one reader of records. Must not know: jobs, who asks.
"""

from __future__ import annotations

import asyncio

from pipeline.clock import Clock
from pipeline.dlq import PAYLOAD_OMITTED
from pipeline.kafka.connection import Connection
from pipeline.redrive.dialects import read_facts
from pipeline.redrive.index import Index
from pipeline.redrive.model import (
    Coordinates,
    FullRecord,
    Groups,
    LetterGone,
    LetterPage,
    NoSuchLetter,
    Overview,
    Preview,
)
from pipeline.redrive.records import Records
from pipeline.redrive.selection import Selection

__all__ = ["Reading"]


class Reading:
    """The looking half of `DeadLetters`. Bound to the event loop it is opened on."""

    def __init__(self, index: Index, connection: Connection, clock: Clock, max_redrives: int) -> None:
        self._index = index
        self._connection = connection
        self._clock = clock
        self._max_redrives = max_redrives
        self._records: Records | None = None
        self._opening = asyncio.Lock()

    @property
    def behind(self) -> int:
        """How many records of the index have not been read yet."""
        return self._index.behind

    async def open(self) -> None:
        """Begin to read the index; its topics exist. Does not wait for it."""
        await self._index.start()

    async def close(self) -> None:
        """End everything. Idempotent."""
        if self._records is not None:
            await self._records.__aexit__(None, None, None)
            self._records = None
        await self._index.close()

    async def caught_up(self) -> None:
        """Wait until everything that is on the topics now is known here; without limit."""
        await self._index.caught_up()

    async def overview(self) -> Overview:
        """Counts by topic and class."""
        topics = await asyncio.to_thread(self._index.queries.topics, self._clock.time())
        return Overview(topics, self._index.behind)

    async def groups(self, selection: Selection) -> Groups:
        """The failures selected, by kind."""
        selection.check()
        return await asyncio.to_thread(self._index.queries.groups, selection)

    async def letters(self, selection: Selection, cursor: str | None = None, limit: int = 50) -> LetterPage:
        """The letters selected, newest first."""
        return await asyncio.to_thread(self._index.queries.letters, selection, cursor, limit)

    async def record(self, topic: str, partition: int, offset: int) -> FullRecord:
        """One letter, and its record from its topic."""
        place = Coordinates(topic, partition, offset)
        letter = await asyncio.to_thread(self._index.queries.letter, place)
        if letter is None:
            raise NoSuchLetter(topic, partition, offset)
        record = (await (await self._reader()).read([place])).get(place)
        if record is None:
            raise LetterGone(topic, partition, offset)
        omitted = (PAYLOAD_OMITTED, b"true") in record.headers
        message = read_facts(record.headers).message
        return FullRecord(letter, record.key, record.value, tuple(record.headers), message, omitted)

    async def preview(self, selection: Selection) -> Preview:
        """What a job would do."""
        selection.check()
        return await asyncio.to_thread(self._index.queries.preview, selection, self._max_redrives)

    async def _reader(self) -> Records:
        async with self._opening:
            if self._records is None:
                records = Records(self._connection)
                await records.__aenter__()
                self._records = records
        return self._records
