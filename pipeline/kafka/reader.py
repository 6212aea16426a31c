"""Reading topics beside the worker's consumer group: from offsets that are given, up to an end or on and on.

Owns: where it stands in each partition, fetching. Must not know: consumer groups, what a record means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from pipeline.kafka.closing import close_completely
from pipeline.kafka.connection import Connection
from pipeline.kafka.reading import read_any_header_name
from pipeline.kafka.topics import partition_counts

__all__ = ["Bounds", "Place", "Reader"]

_PIECE = 50
"""How many records are parsed in one go: a thousand hold the event loop, and live events with it, for 25 ms."""


class Place(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


class Bounds(NamedTuple):
    """What a partition holds: records with offsets from `first` on, all of them below `end`."""

    first: int
    end: int


class Reader:
    """Reads committed records of any topics of one cluster. A context manager; bound to one event loop.

    Its methods raise a `KafkaError` where no broker answers or one refuses, and `SecurityRefused`.
    """

    def __init__(
        self, connection: Connection, *, partition_bytes: int = 1_048_576, wait_s: float = 0.5
    ) -> None:
        """`wait_s`: how long a broker may hold a fetch back that finds nothing, and with it what is asked next."""
        read_any_header_name()
        close_completely()
        self._connection = connection
        self._consumer = AIOKafkaConsumer(
            group_id=None,
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=partition_bytes,
            fetch_max_wait_ms=int(wait_s * 1000),
        )
        self._client = connection.client()
        self._consumer._client = self._client  # noqa: SLF001 -- its own lets one hung broker stop all

    async def __aenter__(self) -> Self:
        """Connect."""
        try:
            await self._consumer.start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._close()

    async def _close(self) -> None:
        try:
            await self._consumer.stop()
        finally:
            await self._client.close()  # who is cancelled amid that leaves it open

    async def bounds(self, topic: str) -> dict[int, Bounds]:
        """What each partition of a topic holds now; empty where the topic does not exist."""
        return {place.partition: bounds for place, bounds in (await self.all_bounds([topic])).items()}

    async def all_bounds(self, topics: Collection[str]) -> dict[Place, Bounds]:
        """What each partition of these topics holds now; those that do not exist are left out."""
        counts = await partition_counts(self._connection, topics)
        places = [TopicPartition(topic, number) for topic in topics for number in range(counts.get(topic, 0))]
        if not places:
            return {}
        first = await self._consumer.beginning_offsets(places)
        end = await self._consumer.end_offsets(places)
        return {Place(*place): Bounds(first[place], end[place]) for place in places}

    async def ends(self, places: Collection[Place]) -> dict[Place, int]:
        """For each partition the offset behind its last record now."""
        found = await self._consumer.end_offsets([TopicPartition(*place) for place in places])
        return {Place(*place): end for place, end in found.items()}

    def read_from(self, offsets: Mapping[Place, int]) -> None:
        """Read these partitions, and only these, each from its offset on."""
        places = {TopicPartition(*place): offset for place, offset in offsets.items()}
        if self._consumer.assignment() != set(places):  # it is logged each time
            self._consumer.assign(list(places))
        self._consumer.resume(*places)
        for place, offset in places.items():
            self._consumer.seek(place, offset)

    async def read_on(self, offsets: Mapping[Place, int], within: int) -> None:
        """Read these partitions, each from its offset on; where that is up to `within` records ahead, from where it
        stands: what was fetched already is not thrown away."""
        places = {TopicPartition(*place): offset for place, offset in offsets.items()}
        if not places.keys() <= self._consumer.assignment():
            self.read_from(offsets)
            return
        self._consumer.resume(*places)
        for place, offset in places.items():
            if not 0 <= offset - await self._consumer.position(place) <= within:
                self._consumer.seek(place, offset)

    async def fetch(self, max_records: int, timeout_s: float, *places: Place) -> dict[Place, list[Any]]:
        """The next records of these partitions, or of all, in order; empty where none came in `timeout_s`.

        Others have turns of the event loop while many are parsed. Who is cancelled meanwhile has read what he has not
        been given. An offset that retention has deleted is skipped: reading goes on with what is left.
        """
        partitions = [TopicPartition(*place) for place in places]
        fetched: dict[Place, list[Any]] = {}
        wait_ms, left = int(timeout_s * 1000), max_records
        while left:
            asked = min(_PIECE, left)
            piece = await self._consumer.getmany(*partitions, timeout_ms=wait_ms, max_records=asked)
            for place, records in piece.items():
                fetched.setdefault(Place(*place), []).extend(records)
            count = sum(map(len, piece.values()))
            if count < asked:  # there are no more
                break
            wait_ms, left = 0, left - count
            await asyncio.sleep(0)
        return fetched

    async def position(self, place: Place) -> int:
        """The offset of what is fetched next; past the last record it also passes markers of transactions."""
        return int(await self._consumer.position(TopicPartition(*place)))

    def pause(self, *places: Place) -> None:
        """Fetch nothing of these partitions until they are resumed."""
        self._consumer.pause(*(TopicPartition(*place) for place in places))

    def resume(self, *places: Place) -> None:
        """Fetch from these partitions again."""
        self._consumer.resume(*(TopicPartition(*place) for place in places))
