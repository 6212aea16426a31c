"""Record batches, format version 2: from records to bytes.

Owns: how a batch is put together and compressed, producer identity and sequence on it, the call into aiokafka's batch
builder. Must not know: where the bytes go.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from aiokafka.codec import gzip_encode, snappy_encode, zstd_encode
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from cramjam import lz4

from pipeline.errors import ErrorClass, StagepostError
from pipeline.packing import join, pack
from pipeline.record import OutRecord, Record

__all__ = ["COMPRESSIONS", "Identity", "Unencodable", "encode"]

COMPRESSIONS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
_UNLIMITED = 0x7FFFFFFF
_HEAD = struct.Struct(">qiiBI")
"""Base offset, the length of what follows, leader epoch, magic, and the checksum of all the rest."""
_REST = struct.Struct(">hiqqqhii")
"""Attributes, last offset, first and last time, producer id and epoch, base sequence, count."""
_BEFORE_LENGTH_ENDS = 12
_NO_EPOCH = -1
_MAGIC = 2
_FRAME = b"\x04\x22\x4d\x18\x60\x40\x82"
"""lz4's frame header: blocks of at most 64 KiB, not linked (KIP-57), without checksums, for the batch has one."""
_BLOCK_BYTES = 65_536
_BLOCK = struct.Struct("<I")
_STORED = 0x80000000
_END_OF_FRAME = b"\0\0\0\0"


class Unencodable(StagepostError):
    """One of the records does not fit Kafka's format: a key that is not bytes, a header name that is no text."""

    error_class = ErrorClass.SERIALIZATION


class Identity(NamedTuple):
    """A producer id and epoch as a broker gave them (InitProducerId)."""

    producer_id: int
    epoch: int


def encode(
    records: Sequence[Record], compression: str, identity: Identity, base_sequence: int, timestamp_ms: int
) -> bytes:
    """One record batch with all records, in order, all with the same timestamp in ms since 1970.

    Raises `Unencodable`.
    """
    try:
        joined = _join(records)
    except (AttributeError, TypeError, ValueError) as error:
        raise Unencodable(f"a record cannot be encoded: {error!r}") from error
    packed, count = _COMPRESSORS[compression](joined), len(records)
    (producer_id, epoch), attributes = identity, COMPRESSIONS[compression]
    rest = _REST.pack(
        attributes, count - 1, timestamp_ms, timestamp_ms, producer_id, epoch, base_sequence, count
    )
    rest = b"".join((rest, *packed))
    head = _HEAD.pack(0, _HEAD.size + len(rest) - _BEFORE_LENGTH_ENDS, _NO_EPOCH, _MAGIC, calc_crc32c(rest))
    return head + rest


def _join(records: Sequence[Record]) -> bytes | memoryview:
    """The records as they follow each other."""
    try:
        return join(records)  # type: ignore[arg-type]
    except TypeError:  # not all are packed
        pass
    if not any(isinstance(record, bytes) for record in records):
        try:
            return _built(records)  # type: ignore[arg-type]
        except UnicodeEncodeError:  # the name of a header that is not UTF-8: only a dead letter has such
            pass
    return join([record if isinstance(record, bytes) else pack(record) for record in records])


def _built(records: Sequence[OutRecord]) -> memoryview:
    """Records that nobody has packed, by the builder in C."""
    builder = DefaultRecordBatchBuilder(
        magic=_MAGIC,
        compression_type=0,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=_UNLIMITED,
    )
    append = builder.append
    for offset, (key, value, headers) in enumerate(records):
        append(offset, 0, key, value, headers)
    return memoryview(builder.build())[_HEAD.size + _REST.size :]


def _lz4(records: bytes | memoryview) -> list[Any]:
    """Compress at lz4's level 1: a tenth of the CPU of level 9, all that aiokafka offers.

    The frame is put together here: a compressor's own state costs more than a small batch (lz4's frame format).
    """
    parts: list[Any] = [_FRAME]
    for at in range(0, len(records), _BLOCK_BYTES):
        block = records[at : at + _BLOCK_BYTES]
        smaller = lz4.compress_block(block, store_size=False)
        if len(smaller) < len(block):
            parts += _BLOCK.pack(len(smaller)), smaller
        else:
            parts += _BLOCK.pack(len(block) | _STORED), block
    parts.append(_END_OF_FRAME)
    return parts


_COMPRESSORS: dict[str, Callable[[bytes | memoryview], Iterable[Any]]] = {
    "none": lambda records: (records,),
    "gzip": lambda records: (gzip_encode(records),),
    "snappy": lambda records: (snappy_encode(records),),
    "lz4": _lz4,
    "zstd": lambda records: (zstd_encode(records),),
}
"""Each gives parts, to be joined."""
