"""Reading dead letters themselves from their topics, by their offsets.

Owns: one reader, and finding out what is not there any more. Must not know: why they are wanted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

from aiokafka.errors import KafkaTimeoutError

from pipeline.kafka.connection import Connection
from pipeline.kafka.reader import Place, Reader
from pipeline.redrive.model import Coordinates

__all__ = ["Records"]

_FETCH = 1_000
_FETCH_S = 1.0
_PATIENCE = 10
_GAP = 1_000
"""Records that nobody wants are read up to this many; over more of them it is faster to jump."""


class Records:
    """Reads records by their coordinates. A context manager; one call at a time is carried out, others wait."""

    def __init__(self, connection: Connection) -> None:
        self._reader = Reader(connection)
        self._lock = asyncio.Lock()
        self._ends: dict[Place, int] = {}

    async def __aenter__(self) -> Self:
        """Connect. Raises a `KafkaError` where no broker answers."""
        await self._reader.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._reader.__aexit__(kind, error, trace)

    async def read(self, wanted: Iterable[Coordinates]) -> dict[Coordinates, Any]:
        """Those of the records that are still there. Raises a `KafkaError` where Kafka does not answer."""
        found: dict[Coordinates, Any] = {}
        async with self._lock:
            runs = _runs(await self._that_may_be_there(set(wanted)))
            while runs:
                await self._read_runs({place: of.pop(0) for place, of in runs.items()}, found)
                runs = {place: of for place, of in runs.items() if of}
        return found

    async def _that_may_be_there(self, wanted: set[Coordinates]) -> set[Coordinates]:
        # Asked for an offset behind the end, a consumer would begin anew at the first.
        if any(offset >= self._end(topic, partition) for topic, partition, offset in wanted):
            bounds = await self._reader.all_bounds({topic for topic, _, _ in wanted})
            self._ends |= {place: found.end for place, found in bounds.items()}
        return {place for place in wanted if place.offset < self._end(place.topic, place.partition)}

    def _end(self, topic: str, partition: int) -> int:
        return self._ends.get(Place(topic, partition), 0)

    async def _read_runs(self, runs: dict[Place, list[int]], found: dict[Coordinates, Any]) -> None:
        """Of each partition the records of one run."""
        wanted = {place: set(offsets) for place, offsets in runs.items()}
        last = {place: offsets[-1] for place, offsets in runs.items()}
        self._reader.read_from({place: offsets[0] for place, offsets in runs.items()})
        patience = _PATIENCE
        while last:
            fetched = await self._reader.fetch(_FETCH, _FETCH_S)
            for place, records in fetched.items():
                for record in records:
                    if record.offset in wanted[place]:
                        found[Coordinates(*place, record.offset)] = record
            for place in [place for place in last if await self._reader.position(place) > last[place]]:
                del last[place]
                self._reader.pause(place)
            patience = _PATIENCE if fetched else patience - 1
            if last and not patience:
                raise KafkaTimeoutError(f"{next(iter(last))} gave nothing for {_PATIENCE * _FETCH_S:g} s")


def _runs(wanted: Iterable[Coordinates]) -> dict[Place, list[list[int]]]:
    offsets: dict[Place, list[int]] = {}
    for topic, partition, offset in sorted(wanted):
        offsets.setdefault(Place(topic, partition), []).append(offset)
    return {place: _joined(of) for place, of in offsets.items()}


def _joined(offsets: list[int]) -> list[list[int]]:
    """Offsets in runs, each of which is read without a jump."""
    runs = [offsets[:1]]
    for before, offset in pairwise(offsets):
        if offset - before > _GAP:
            runs.append([])
        runs[-1].append(offset)
    return runs
