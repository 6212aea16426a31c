"""Learning what is parked from partitions that were just assigned: the last checkpoint, and what is behind it.

Owns: reading both topics up to their ends, trying again, saying what is awaited. Must not know: what happens with what
was learnt.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Protocol

from catalog import OwnTopics
from pipeline.kafka.reader import Bounds, Place
from pipeline.park import Checkpoint, Cursor, load_checkpoint, unpark
from pipeline.staging import record_size

__all__ = ["LEARNING", "OpenReader", "ReaderLike", "learn", "learn_all"]

log = logging.getLogger(__name__)

LEARNING = "learning what is parked"
"""Why a partition waits until that is known, or known to be out of reach."""
_AGAIN_S = 1.0
_FETCH_RECORDS = 2_000
_FETCH_S = 0.5


class ReaderLike(Protocol):
    """What is asked of `pipeline.kafka.reader.Reader`."""

    async def bounds(self, topic: str) -> dict[int, Bounds]:
        """What each partition of a topic holds."""
        ...

    async def ends(self, places: Collection[Place]) -> dict[Place, int]:
        """Where each partition ends."""
        ...

    def read_from(self, offsets: dict[Place, int]) -> None:
        """Read these, from there."""
        ...

    async def fetch(self, max_records: int, timeout_s: float) -> dict[Place, list[Any]]:
        """The next records."""
        ...

    async def position(self, place: Place) -> int:
        """The offset of what is fetched next."""
        ...


OpenReader = Callable[[], AbstractAsyncContextManager[ReaderLike]]


async def learn_all(
    open_reader: OpenReader, topics: OwnTopics, numbers: Collection[int]
) -> AsyncIterator[tuple[Mapping[int, Checkpoint], str]]:
    """The cursors of these partitions as they become known, until all are; beside them why the others are not: the
    parked topics have no place for what staging has. Tries without limit."""
    left, told = set(numbers), ""
    while left:
        try:
            async with open_reader() as reader:
                found = await learn(reader, topics, left)
                lacking = await _lacking(reader, topics, left - found.keys())
        except Exception as error:  # noqa: BLE001 -- whatever it is: without it nothing may be routed
            log.warning("parking.not_learnt error=%r", error)
        else:
            left -= found.keys()
            for number, checkpoint in found.items():
                for name, cursor in checkpoint.cursors.items():
                    log.info("parking.learnt partition=%d events=%d name=%r", number, cursor.records, name)
            if lacking not in {told, LEARNING, ""}:
                log.error("parking.no_place partitions=%s reason=%r", sorted(left), lacking)
                told = lacking
            yield found, lacking
        if left:
            await asyncio.sleep(_AGAIN_S)


async def _lacking(reader: ReaderLike, topics: OwnTopics, numbers: Collection[int]) -> str:
    """Which topic has to be mended before anything can be parked from these partitions; empty where there are none."""
    for topic in (topics.parked, topics.parked_cursors) if numbers else ():
        count = len(await reader.bounds(topic))
        if count <= max(numbers):
            what = f"has {count} partitions, fewer than staging" if count else "is missing"
            return f"{topic} {what}: `faust -A pipeline topics check` says what to do"
    return LEARNING if numbers else ""  # it was mended just now


async def learn(reader: ReaderLike, topics: OwnTopics, numbers: Collection[int]) -> dict[int, Checkpoint]:
    """For each of these partitions that both topics have, the cursors as they are now. Raises what the reader raises.

    Everything that an earlier owner of the partition was told is parked is counted: what it was not told was not
    committed either, and will be read from staging again.
    """
    kept = await reader.bounds(topics.parked_cursors)
    parked = await reader.bounds(topics.parked)
    found = {
        number: Checkpoint(parked[number].first, {})
        for number in numbers
        if number in parked and number in kept
    }
    last = {
        Place(topics.parked_cursors, number): kept[number].end - 1
        for number in found
        if kept[number].end > kept[number].first
    }
    async for place, records in _read_to(reader, last, {place: at + 1 for place, at in last.items()}):
        checkpoint = load_checkpoint(records[-1].value)
        # One that is ahead of the parked topic tells of another topic of that name, deleted since.
        if checkpoint is not None and checkpoint.upto <= parked[place.partition].end:
            found[place.partition] = checkpoint
    starts = {
        Place(topics.parked, number): max(checkpoint.upto, parked[number].first)
        for number, checkpoint in found.items()
    }
    counting = {number: _Counting(checkpoint) for number, checkpoint in found.items()}
    ends = {place: parked[place.partition].end for place in starts}
    async for place, records in _read_to(reader, starts, ends):
        counting[place.partition].count(records)
    return {number: counted.checkpoint(parked[number].end) for number, counted in counting.items()}


class _Counting:
    """A checkpoint and what stands behind it."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._cursors = {name: replace(cursor) for name, cursor in checkpoint.cursors.items()}

    def count(self, records: list[Any]) -> None:
        """Take the next records of the parked partition into account."""
        for record in records:
            parked = unpark(record.headers)
            if parked is None:
                continue  # not ours
            headers, origin = parked
            size = record_size(record.key, record.value, headers)
            cursor = self._cursors.get(origin.name)
            if cursor is None:
                self._cursors[origin.name] = Cursor(
                    record.offset, record.offset, 1, size, origin.at, origin.reason
                )
            else:
                cursor.last = record.offset
                cursor.records += 1
                cursor.bytes += size

    def checkpoint(self, upto: int) -> Checkpoint:
        """The cursors as they are now."""
        return Checkpoint(upto, self._cursors)


async def _read_to(reader: ReaderLike, starts: dict[Place, int], ends: dict[Place, int]) -> Any:
    """The records of each partition from its start to its end, in order."""
    left = {place for place, start in starts.items() if start < ends[place]}
    if not left:
        return
    reader.read_from({place: starts[place] for place in left})
    while left:
        for place, records in (await reader.fetch(_FETCH_RECORDS, _FETCH_S)).items():
            if place in left:
                within = [record for record in records if record.offset < ends[place]]
                if within:
                    yield place, within
        left = {place for place in left if await reader.position(place) < ends[place]}
