"""What a cluster keeps: topics, partitions, and what it remembers of producers.

Owns: appending real record batches as Kafka does for idempotent producers (KIP-98), reading them back.
Must not know: connections, leaders, groups.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aiokafka.record.memory_records import MemoryRecords

__all__ = ["Appended", "Log", "Record", "Topic"]

_OFFSET = struct.Struct(">q")
_REMEMBERED_BATCHES = 5
CORRUPT, TOO_LARGE, OUT_OF_ORDER, DUPLICATE = 2, 10, 45, 46


class Record(NamedTuple):
    """A record as it lies in a log."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class Appended(NamedTuple):
    """An answer: an error code, and where the first record lies."""

    code: int
    offset: int = -1


@dataclass
class _Producer:
    """What a broker remembers of a producer: its next sequence number and its last batches."""

    next_sequence: int
    batches: deque[tuple[int, int, int]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED_BATCHES))


class Log:
    """One partition, replicated to every node; nothing acknowledged is ever lost."""

    def __init__(self, topic: str, partition: int, on_append: Callable[[Log, list[Record]], None]) -> None:
        self.topic = topic
        self.partition = partition
        self.start = 0
        """What is before was deleted."""
        self.end = 0
        """The offset of the next record."""
        self.leader = 0
        """The node that leads; -1: none at the moment."""
        self.batches: list[tuple[int, int, bytes]] = []
        """First offset, the one after the last, bytes."""
        self.waiters: dict[Any, None] = {}
        """Whoever waits for something to be appended."""
        self._producers: dict[tuple[int, int], _Producer] = {}
        self._on_append = on_append

    def forget_producers(self) -> None:
        """As after `producer.id.expiration.ms`: what comes next from them is taken as it comes."""
        self._producers.clear()

    def append(self, data: bytes, limit_bytes: int) -> Appended:
        """Take a record batch of format version 2 as it came over the wire."""
        reader = MemoryRecords(bytes(data))
        batch = reader.next_batch()
        if batch is None or reader.has_next() or not batch.validate_crc():
            return Appended(CORRUPT)
        if len(data) > limit_bytes:
            return Appended(TOO_LARGE)
        producer_id, sequence = batch.producer_id, batch.base_sequence
        records = list(batch)
        if producer_id >= 0:
            known = self._producers.get((producer_id, batch.producer_epoch))
            if known is None:
                known = self._producers[producer_id, batch.producer_epoch] = _Producer(sequence)
            for first, count, offset in known.batches:
                if (first, count) == (sequence, len(records)):
                    return Appended(0, offset)
            if sequence < known.next_sequence:
                return Appended(DUPLICATE)
            if sequence > known.next_sequence:
                return Appended(OUT_OF_ORDER)
            known.batches.append((sequence, len(records), self.end))
            known.next_sequence += len(records)
        return Appended(0, self._keep(data, records))

    def read(self, offset: int, max_bytes: int) -> bytes:
        """Whole batches from the one with this offset on; at least one where there is one."""
        parts: list[bytes] = []
        size = 0
        low, high = 0, len(self.batches)
        while low < high:
            middle = (low + high) // 2
            if self.batches[middle][1] <= offset:
                low = middle + 1
            else:
                high = middle
        for _, _, data in self.batches[low:]:
            if parts and size + len(data) > max_bytes:
                break
            parts.append(data)
            size += len(data)
        return b"".join(parts)

    def _keep(self, data: bytes, records: list[Any]) -> int:
        base = self.end
        self.end += len(records)
        self.batches.append((base, self.end, _OFFSET.pack(base) + bytes(data[_OFFSET.size :])))
        kept = [Record(base + at, r.key, r.value, r.headers) for at, r in enumerate(records)]
        self._on_append(self, kept)
        for waiter in list(self.waiters):
            waiter()
        return base


@dataclass
class Topic:
    """A topic: its partitions, and the largest batch it takes."""

    name: str
    logs: list[Log]
    limit_bytes: int
