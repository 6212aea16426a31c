"""Looking at what is parked, of all staging partitions, whoever has them: what an errand would meet. Changes nothing.

Owns: counting from the cursors, and reading what only the records tell. Must not know: this worker's own partitions,
who asks.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from catalog import OwnTopics
from pipeline.kafka.reader import Place
from pipeline.park import Choice, Cursor, parked_under, unpark
from pipeline.parking.learn import ReaderLike, learn
from pipeline.staging import DEFINITION, TENANT

__all__ = ["Look", "Share", "look"]

_LIMIT_S = 10.0
_FETCH_RECORDS = 5_000
_FETCH_S = 0.5
_SHOWN = 20
_NAMES = 10_000
"""Different tenants that are told apart; what comes after them counts for the whole alone."""


@dataclass(frozen=True, slots=True)
class Share:
    """How many of a tenant, definition or staging partition; the empty name stands for none."""

    name: str
    count: int


@dataclass(frozen=True, slots=True)
class Look:
    """What is parked under a name and chosen. `oldest_at`: when the oldest was parked, seconds since 1970.

    `is_whole`: false where there is so much that only a part could be read in ten seconds: `tenants` and `definitions`
    are then those of the `looked_at` first, and so is `count` where it is a choice. They are the largest, at most 20.
    `reasons`: why they are parked.
    """

    count: int
    looked_at: int
    is_whole: bool
    oldest_at: float | None
    reasons: Sequence[str]
    partitions: Sequence[Share]
    tenants: Sequence[Share]
    definitions: Sequence[Share]


async def look(
    reading: AbstractAsyncContextManager[ReaderLike],
    topics: OwnTopics,
    name: str,
    choice: Choice,
    partition: int | None,
    limit_s: float = _LIMIT_S,
) -> Look:
    """Look. Raises what the reader raises. Takes at most some seconds more than `limit_s`."""
    async with reading as reader:
        numbers = await reader.bounds(topics.parked)
        found = await learn(reader, topics, [n for n in numbers if partition in {None, n}])
        cursors = {
            number: checkpoint.cursors[name]
            for number, checkpoint in found.items()
            if name in checkpoint.cursors
        }
        seen = _Seen(name.encode(), choice, cursors)
        is_whole = True
        try:
            async with asyncio.timeout(limit_s):
                await _read(reader, topics.parked, cursors, seen)
        except TimeoutError:
            is_whole = False
    return seen.look(is_whole=is_whole)


async def _read(reader: ReaderLike, topic: str, cursors: Mapping[int, Cursor], seen: _Seen) -> None:
    left = {Place(topic, number): cursor.first for number, cursor in cursors.items()}
    if left:
        reader.read_from(left)
    while left:
        for place, records in (await reader.fetch(_FETCH_RECORDS, _FETCH_S)).items():
            if place in left:
                seen.count(place.partition, records)
            await asyncio.sleep(0)
        left = {
            place: first
            for place, first in left.items()
            if await reader.position(place) <= cursors[place.partition].last
        }


class _Seen:
    """What was read so far."""

    def __init__(self, name: bytes, choice: Choice, cursors: Mapping[int, Cursor]) -> None:
        self._name = name
        self._choice = choice
        self._cursors = cursors
        self._oldest: float | None = None
        self._partitions: Counter[int] = Counter()
        self._tenants: Counter[str] = Counter()
        self._definitions: Counter[str] = Counter()

    def count(self, number: int, records: Sequence[Any]) -> None:
        """Take in the next records of a partition."""
        cursor = self._cursors[number]
        for record in records:
            headers = record.headers
            if record.offset > cursor.last or parked_under(headers) != self._name:
                continue
            if not cursor.waits(record.offset, headers) or not self._choice.has(headers):
                continue
            found = unpark(headers)
            if found is None:
                continue
            fields = dict(found[0])
            self._oldest = found[1].at if self._oldest is None else min(self._oldest, found[1].at)
            self._partitions[number] += 1
            _add(self._tenants, fields.get(TENANT))
            _add(self._definitions, fields.get(DEFINITION))

    def look(self, *, is_whole: bool) -> Look:
        """What that makes."""
        looked_at = self._partitions.total()
        counts: Mapping[int, int] = self._partitions
        oldest = self._oldest
        if not is_whole and self._choice.is_all:  # the cursors know
            counts = {number: cursor.records for number, cursor in self._cursors.items()}
            oldest = min((cursor.oldest_at for cursor in self._cursors.values()), default=oldest)
        return Look(
            count=sum(counts.values()),
            looked_at=looked_at,
            is_whole=is_whole,
            oldest_at=oldest,
            reasons=sorted({cursor.reason for cursor in self._cursors.values()})[:_SHOWN],
            partitions=[Share(str(number), counts[number]) for number in sorted(counts)],
            tenants=_largest(self._tenants),
            definitions=_largest(self._definitions),
        )


def _add(counts: Counter[str], value: bytes | None) -> None:
    name = (value or b"")[:1_024].decode(errors="replace")
    if name in counts or len(counts) < _NAMES:
        counts[name] += 1


def _largest(counts: Counter[str]) -> list[Share]:
    return [Share(name, count) for name, count in counts.most_common(_SHOWN)]
