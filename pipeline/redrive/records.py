"""Reading dead letters themselves from their topics, by their offsets.

Owns: one reader, and finding out what is not there any more. Must not know: why they are wanted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

from aiokafka.errors import KafkaTimeoutError

from pipeline.kafka.connection import Connection
from pipeline.kafka.reader import Place, Reader
from pipeline.redrive.model import Coordinates

__all__ = ["Records"]

_RECORDS = 1_000
"""How many are read at once, with those in between that nobody wants."""
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
        offsets: dict[Place, set[int]] = {}
        for topic, partition, offset in wanted:
            offsets.setdefault(Place(topic, partition), set()).add(offset)
        found: dict[Coordinates, Any] = {}
        async with self._lock:
            there = await self._that_may_be_there(offsets)
            runs = {place: _joined(sorted(of)) for place, of in there.items()}
            while runs:
                await self._read_runs({place: of.pop(0) for place, of in runs.items()}, found)
                runs = {place: of for place, of in runs.items() if of}
        return found

    async def _that_may_be_there(self, wanted: Mapping[Place, set[int]]) -> dict[Place, set[int]]:
        # Asked for an offset behind the end, a consumer would begin anew at the first.
        if any(max(of) >= self._ends.get(place, 0) for place, of in wanted.items()):
            bounds = await self._reader.all_bounds({place.topic for place in wanted})
            self._ends |= {place: found.end for place, found in bounds.items()}
        below = {
            place: {offset for offset in of if offset < self._ends.get(place, 0)}
            for place, of in wanted.items()
        }
        return {place: of for place, of in below.items() if of}

    async def _read_runs(self, runs: dict[Place, list[int]], found: dict[Coordinates, Any]) -> None:
        """Of each partition the records of one run, and nothing behind it: it may be read next."""
        await self._reader.read_on({place: offsets[0] for place, offsets in runs.items()}, _GAP)
        for place, offsets in runs.items():
            wanted, last, patience = set(offsets), offsets[-1], _PATIENCE
            while (position := await self._reader.position(place)) <= last:
                fetched = await self._reader.fetch(min(_RECORDS, last + 1 - position), _FETCH_S, place)
                for record in fetched.get(place, ()):
                    if record.offset in wanted:
                        found[Coordinates(*place, record.offset)] = record
                patience = _PATIENCE if fetched else patience - 1
                if not patience:
                    raise KafkaTimeoutError(f"{place} gave nothing for {_PATIENCE * _FETCH_S:g} s")
            self._reader.pause(place)


def _joined(offsets: list[int]) -> list[list[int]]:
    """Offsets in runs, each of which is read without a jump."""
    runs = [offsets[:1]]
    for before, offset in pairwise(offsets):
        if offset - before > _GAP:
            runs.append([])
        runs[-1].append(offset)
    return runs
