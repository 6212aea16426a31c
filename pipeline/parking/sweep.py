"""One pass over the parked topic: what waits is delivered in order, until nothing is left or its target fails.

Owns: reading, chunks under way, advancing cursors, the way back to straight delivery.
Must not know: breakers, who decides what may be drained, how a chunk is delivered.

A chunk is some parked records of one backlog; it is delivered like any batch. What is drained stays on the parked
topic until the whole chunk has ended, so nothing needs saving where a target fails: the chunk is forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.clock import Clock
from pipeline.kafka.reader import Place
from pipeline.park import Origin, parked_under, unpark
from pipeline.parking.backlog import Backlog, Partition, Stray
from pipeline.parking.learn import ReaderLike
from pipeline.record import RawHeaders, ReadRecord
from pipeline.staging import record_size

__all__ = ["Chunk", "Deliver", "Sweep"]

_FETCH_RECORDS = 500
_FETCH_S = 0.2
_OUT_RECORDS = 8_000
_OUT_BYTES = 16_777_216
"""What may be under way, of a sweep that has it for itself."""
_NEAR = 1_000
"""So many offsets before the last parked event, a backlog opens its room."""


@dataclass(frozen=True, slots=True)
class ParkedRecord:
    """A staging record as it was before it was parked; but `timestamp`, which is when it was."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: RawHeaders


class Chunk:
    """Parked records of one backlog on their way. `partition`: the staging partition, as of any batch.

    `reached`: how many of them their target acknowledged.
    """

    def __init__(self, sweep: Sweep, backlog: Backlog) -> None:
        self.backlog = backlog
        self.partition = backlog.partition
        self.records: Sequence[ReadRecord] = []
        self.size = 0
        self.next_offset = 0
        self.next_at = 0.0
        self.reached = 0
        self.done = False
        self._sweep = sweep

    def add(self, record: Any, headers: RawHeaders, origin: Origin) -> None:
        """The next record."""
        assert isinstance(self.records, list)
        self.records.append(ParkedRecord(origin.offset, record.timestamp, record.key, record.value, headers))
        self.size += record_size(record.key, record.value, headers)
        self.next_offset, self.next_at = record.offset + 1, origin.at

    def lose(self, reason: str) -> None:
        """It was taken back: it stays parked."""
        self._sweep.fail(self.backlog, reason)

    def end(self) -> None:
        """Every record of it has ended."""
        self.done = True
        self._sweep.advance(self.backlog)


Deliver = Callable[[Chunk], str]
"""Deliver a chunk; it is told its end. Where that cannot be now: why, and nothing was written."""


class Sweep:
    """A pass for some backlogs. `park`: write a stray to the parked topic after all. `abandon`: take chunks back.
    `share`: it may have that part of what one sweep may have under way."""

    def __init__(
        self,
        parked_topic: str,
        partitions: dict[int, Partition],
        backlogs: Iterable[Backlog],
        *,
        deliver: Deliver,
        abandon: Callable[[list[Chunk]], None],
        park: Callable[[Backlog, list[Stray]], None],
        clock: Clock,
        room_s: float,
        share: int = 1,
        probe: bool = False,
    ) -> None:
        self._topic = parked_topic
        self._partitions = partitions
        self._deliver = deliver
        self._abandon = abandon
        self._park = park
        self._clock = clock
        self._room_s = room_s
        self._share = share
        self._probe = probe
        self._out: dict[Backlog, deque[Chunk]] = {}
        self._wanted: dict[int, dict[bytes, Backlog]] = {}
        self._ends: dict[Backlog, int] = {}
        self._room_since: dict[Backlog, float] = {}
        self._moved = asyncio.Event()
        self.reached = 0
        """Records acknowledged by their targets."""
        self.ended: Counter[Backlog] = Counter()
        """How many records of each backlog have ended."""
        self.failures: dict[str, str] = {}
        """By name, why its backlogs are not drained; others have nothing left."""
        for backlog in backlogs:
            backlog.drained_by = self
            self._out[backlog] = deque()
            self._wanted.setdefault(backlog.partition, {})[backlog.name.encode()] = backlog

    async def run(self, reader: ReaderLike) -> None:
        """Drain until nothing is left or everything failed. Raises what the reader raises; see `stop`."""
        places = {
            Place(self._topic, number): min(b.cursor.first for b in wanted.values() if b.cursor)
            for number, wanted in self._wanted.items()
        }
        if places:  # else it was stopped before it began
            reader.read_from(places)
        while self._wanted:
            await self._until_there_is_room()
            for place, records in (await reader.fetch(_FETCH_RECORDS, _FETCH_S)).items():
                self._take(place.partition, records)
            for place in places:
                if place.partition in self._wanted:
                    await self._look_at_end(place, reader)

    def stop(self, reason: str) -> None:
        """Let go of everything: rooms are parked; chunks under way go on, or are lost with their partition."""
        for backlog in self.backlogs:
            self._leave(backlog, reason)

    def drop(self) -> list[Chunk]:
        """The partitions belong to somebody else: forget everything. The chunks that were under way."""
        out = self.out
        for backlog, chunks in self._out.items():
            chunks.clear()
            backlog.room = None
        self._wanted.clear()
        self._moved.set()
        return out

    @property
    def backlogs(self) -> list[Backlog]:
        """What is still to be drained."""
        return [backlog for wanted in self._wanted.values() for backlog in wanted.values()]

    @property
    def out(self) -> list[Chunk]:
        """Chunks under way."""
        return [chunk for chunks in self._out.values() for chunk in chunks]

    async def finished(self) -> None:
        """Wait, without limit, until no chunk is under way; somebody else may then drain its backlogs."""
        while self.out:
            self._moved.clear()
            await self._moved.wait()
        for backlog in self._out:
            if backlog.drained_by is self:
                backlog.drained_by = None

    def fail(self, backlog: Backlog, reason: str) -> None:
        """The target failed: what of the backlog is under way is taken back; it all stays parked."""
        out, self._out[backlog] = list(self._out[backlog]), deque()
        self._abandon(out)
        self._leave(backlog, reason)
        self._moved.set()

    def advance(self, backlog: Backlog) -> None:
        """A chunk ended: the cursor moves over all that ended in front."""
        chunks = self._out[backlog]
        while chunks and chunks[0].done:
            chunk = chunks.popleft()
            self.reached += chunk.reached
            self.ended[backlog] += len(chunk.records)
            self._note(backlog, chunk)
        self._moved.set()

    def _note(self, backlog: Backlog, chunk: Chunk) -> None:
        """Move the cursor over a chunk that has ended."""
        self._partitions[backlog.partition].drained(
            backlog, len(chunk.records), chunk.size, chunk.next_offset, chunk.next_at
        )

    def _wants(self, backlog: Backlog, offset: int, headers: RawHeaders) -> bool:
        """Whether a parked record of a backlog is to be delivered."""
        return backlog.cursor is not None and backlog.cursor.waits(offset, headers)

    def _take(self, number: int, records: Sequence[Any]) -> None:
        wanted = self._wanted.get(number, {})
        chunks: dict[bytes, Chunk] = {}
        for record in records:
            headers = record.headers
            name = parked_under(headers)
            if name is None or name not in wanted:
                continue
            backlog = wanted[name]
            if not self._wants(backlog, record.offset, headers):
                continue
            found = unpark(headers)
            if found is None:
                continue
            chunk = chunks.get(name)
            if chunk is None:
                chunk = chunks[name] = Chunk(self, backlog)
            chunk.add(record, *found)
            if self._probe:
                break
        for chunk in chunks.values():
            self._send(chunk)

    def _send(self, chunk: Chunk) -> None:
        backlog = chunk.backlog
        if self._probe:
            self._forget(backlog)
            self._close_room(backlog)
        self._out[backlog].append(chunk)
        refusal = self._deliver(chunk)
        if refusal:
            self._out[backlog].remove(chunk)
            self.fail(backlog, refusal)

    async def _look_at_end(self, place: Place, reader: ReaderLike) -> None:
        """Near the end open the rooms; at the end, with everything ended, let what is in them go straight."""
        position = await reader.position(place)
        now = self._clock.monotonic()
        wanted = self._wanted.get(place.partition, {})
        for backlog in wanted.values():
            if backlog.room is None and backlog.cursor and position >= backlog.cursor.last - _NEAR:
                backlog.room = []
                self._room_since[backlog] = now
        # What is being parked now is behind any end that could be asked for.
        unasked = [
            b for b in wanted.values() if b.room is not None and not b.under_way and b not in self._ends
        ]
        if unasked:
            end = (await reader.ends([place]))[place]
            self._ends.update((backlog, end) for backlog in unasked if backlog.room is not None)
        for backlog in [b for b in wanted.values() if b.room is not None]:
            at_end = backlog in self._ends and position >= self._ends[backlog]
            if at_end and not self._out[backlog]:
                self._forget(backlog)
                for stray in self._partitions[backlog.partition].close(backlog):
                    stray.deliver()
            elif now - self._room_since[backlog] > self._room_s:
                self._close_room(backlog)

    async def _until_there_is_room(self) -> None:
        def full() -> bool:
            out = self.out
            return (
                sum(len(chunk.records) for chunk in out) >= _OUT_RECORDS // self._share
                or sum(chunk.size for chunk in out) >= _OUT_BYTES // self._share
            )

        while full():
            self._moved.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._room_s):
                    await self._moved.wait()

    def _leave(self, backlog: Backlog, reason: str) -> None:
        self.failures.setdefault(backlog.name, reason)
        self._forget(backlog)
        self._close_room(backlog)

    def _close_room(self, backlog: Backlog) -> None:
        """What waits in the room is parked after all."""
        room, backlog.room = backlog.room, None
        self._ends.pop(backlog, None)
        self._room_since.pop(backlog, None)
        if room:
            self._park(backlog, room)

    def _forget(self, backlog: Backlog) -> None:
        wanted = self._wanted.get(backlog.partition, {})
        if wanted.pop(backlog.name.encode(), None) is not None and not wanted:
            del self._wanted[backlog.partition]
