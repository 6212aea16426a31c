"""Reading fetched record batches so that no record, whoever wrote it, can stop its partition.

Owns: what happens where aiokafka's parser gives up on a header name that is not UTF-8; handing records out as
they were parsed. Must not know: who reads, or what a record means.

Kafka calls header names UTF-8, but no broker looks, and other clients write any bytes. aiokafka raises from the
middle of a fetch, again and again, and what lies behind such a record is never reached. Here the rest of that
fetch is read again, slowly, with such names as surrogate escapes (PEP 383): the bytes survive, and a dead letter
can repeat them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy, _DefaultRecordPy
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy
from aiokafka.record.util import decode_varint

__all__ = ["hand_out_as_parsed", "read_any_header_name"]


def read_any_header_name() -> None:
    """Let all aiokafka consumers of this process read header names of any bytes. Idempotent."""
    fetcher.MemoryRecords = _Fetched
    fetcher.PartitionRecords = _PartitionRecords


def hand_out_as_parsed(topic: str) -> None:
    """Let the consumers of this process hand out this topic's records as aiokafka's parser made them.

    They have offset, timestamp, key, value and headers. aiokafka copies each into an object that also names topic
    and partition, in Python, which costs as much as parsing does.
    """
    _PartitionRecords.as_parsed |= {topic}


class _Fetched:
    """aiokafka's reader of a fetch, and the bytes it reads."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        records = MemoryRecords(data)
        self.has_next = records.has_next
        self.next_batch = records.next_batch
        self.size_in_bytes = records.size_in_bytes


class _PartitionRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    """aiokafka's iterator over the records of a fetch; reads on where a header name ends it."""

    as_parsed: ClassVar[frozenset[str]] = frozenset()
    _records: _Fetched | _FetchedLeniently
    _records_iterator: Iterator[Any]

    def __init__(self, tp: Any, *arguments: Any, **named: Any) -> None:
        super().__init__(tp, *arguments, **named)
        if tp.topic in self.as_parsed:
            self._consumer_record = _as_parsed

    def __iter__(self) -> Iterator[Any]:
        # Not ourselves: a call less for each record. Who stops half-way goes on here later.
        return self._records_iterator

    def _unpack_records(self) -> Iterator[Any]:
        try:
            yield from super()._unpack_records()
        except UnicodeDecodeError:
            assert isinstance(self._records, _Fetched)  # the other one raises nothing
            self._records = _FetchedLeniently(self._records.data, self.next_fetch_offset)
            yield from super()._unpack_records()


def _as_parsed(_place: object, record: Any) -> Any:
    return record


class _FetchedLeniently(_MemoryRecordsPy):  # type: ignore[misc]
    """The batches of a fetch from an offset on, with header names of any bytes."""

    def __init__(self, data: bytes, from_offset: int) -> None:
        super().__init__(data)
        while self._next_slice is not None and self._batch().next_offset <= from_offset:
            self._cache_next()

    def next_batch(self) -> _LenientBatch | None:
        """The next batch; `has_next` says whether there is one."""
        if self._next_slice is None:
            return None
        batch = self._batch()
        self._cache_next()
        return batch

    def _batch(self) -> _LenientBatch:
        return _LenientBatch(self._next_slice)


class _LenientBatch(_DefaultRecordBatchPy):  # type: ignore[misc]
    """A record batch of format version 2, the only one with headers."""

    _pos: int

    def _read_msg(self, *_: object) -> _DefaultRecordPy:
        # Record: length, attributes, timestamp delta, offset delta, key, value, headers; every number a varint.
        buffer: bytearray = self._buffer
        at = self._pos

        def number() -> int:
            nonlocal at
            value: int
            value, at = decode_varint(buffer, at)
            return value

        def data() -> bytes | None:
            nonlocal at
            length = number()
            if length < 0:
                return None
            first, at = at, at + length
            return bytes(buffer[first:at])

        length = number()
        self._pos = at + length
        at += 1  # attributes: none are in use
        timestamp = self.first_timestamp + number()
        offset = self.base_offset + number()
        key, value = data(), data()
        headers = [((data() or b"").decode(errors="surrogateescape"), data()) for _ in range(number())]
        if self.timestamp_type:  # the broker's time of appending, the same for the whole batch
            timestamp = self.max_timestamp
        return _DefaultRecordPy(offset, timestamp, self.timestamp_type, key, value, headers)
