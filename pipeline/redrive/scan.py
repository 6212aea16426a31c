"""Scanning a topic for dead letters that the index does not know: another program's, or older than the index.

Owns: reading a topic through, telling what is a dead letter from what is not. Must not know: who asked for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from catalog import OwnTopics
from pipeline.kafka.cluster import Cluster
from pipeline.kafka.connection import Connection
from pipeline.kafka.reader import Place, Reader
from pipeline.redrive.dialects import UNKNOWN, read_facts
from pipeline.redrive.entry import index_entry
from pipeline.redrive.model import Coordinates
from pipeline.redrive.queries import Queries
from pipeline.redrive.ship import ship_all

__all__ = ["NOT_A_DEAD_LETTER", "scan"]

NOT_A_DEAD_LETTER = "not_a_dead_letter"
_RECORDS = 1_000
_FETCH_S = 1.0


async def scan(
    topic: str, connection: Connection, own: Cluster, topics: OwnTopics, queries: Queries
) -> AsyncIterator[tuple[int, int, int]]:
    """Put the dead letters of a topic into the index, as far as it reaches now.

    Gives after each chunk, all of it durable, how many records were read, how many became known, and how many are
    no dead letters. Raises what Kafka raises. What is in the index already is left as it is.
    """
    async with Reader(connection) as reader:
        bounds = await reader.all_bounds([topic])
        left = {place: found for place, found in bounds.items() if found.first < found.end}
        reader.read_from({place: found.first for place, found in left.items()})
        while left:
            fetched = await reader.fetch(_RECORDS, _FETCH_S)
            read = known = alien = 0
            for place, records in fetched.items():
                new, others = await _new_entries(place, records, queries)
                await ship_all(own, topics.dlq_index, new)
                read, known, alien = read + len(records), known + len(new), alien + others
            for place in [place for place in left if await reader.position(place) >= left[place].end]:
                del left[place]
                reader.pause(place)
            yield read, known, alien


async def _new_entries(place: Place, records: list[Any], queries: Queries) -> tuple[list[Any], int]:
    first, last = records[0].offset, records[-1].offset
    known = await asyncio.to_thread(queries.known_offsets, place.topic, place.partition, first, last)
    entries, others = [], 0
    for record in records:
        if record.offset in known:
            continue
        if read_facts(record.headers).dialect == UNKNOWN:
            others += 1
            continue
        at = Coordinates(place.topic, place.partition, record.offset)
        entries.append(
            index_entry(at, record.key, record.value, record.headers, failed_at=record.timestamp / 1000)
        )
    return entries, others
