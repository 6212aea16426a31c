"""Record batches, format version 2: from records to bytes.

Owns: the call into aiokafka's batch builder, producer identity and sequence on a batch.
Must not know: where the bytes go.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from aiokafka.record.default_records import DefaultRecordBatchBuilder, _DefaultRecordBatchBuilderPy
from aiokafka.record.util import calc_crc32c
from cramjam import lz4

from pipeline.errors import ErrorClass, StagepostError
from pipeline.record import OutRecord

__all__ = ["COMPRESSIONS", "Identity", "Unencodable", "encode"]

COMPRESSIONS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
_UNLIMITED = 0x7FFFFFFF
_BATCH_HEADER = 61
_LENGTH, _LENGTH_AT = struct.Struct(">i"), 8
_CHECKSUM, _CHECKSUM_AT = struct.Struct(">I"), 17
_ATTRIBUTES, _ATTRIBUTES_AT = struct.Struct(">h"), 21
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
    records: Sequence[OutRecord], compression: str, identity: Identity, base_sequence: int, timestamp_ms: int
) -> bytes | bytearray:
    """One record batch with all records, in order, all with the same timestamp in ms since 1970.

    Raises `Unencodable`.
    """
    facts = {
        "magic": 2,
        "compression_type": COMPRESSIONS["none" if compression == "lz4" else compression],
        "is_transactional": 0,
        "producer_id": identity.producer_id,
        "producer_epoch": identity.epoch,
        "base_sequence": base_sequence,
        "batch_size": _UNLIMITED,
    }
    try:
        data = _build(DefaultRecordBatchBuilder(**facts), records, timestamp_ms)
    except UnicodeEncodeError:
        data = _build(_DefaultRecordBatchBuilderPy(**facts), _with_raw_names(records), timestamp_ms)
    except (AttributeError, TypeError, ValueError) as error:
        raise Unencodable(f"a record cannot be encoded: {error!r}") from error
    return _lz4(data) if compression == "lz4" else data


def _build(builder: DefaultRecordBatchBuilder, records: Iterable[OutRecord], timestamp_ms: int) -> bytearray:
    append = builder.append
    for offset, (key, value, headers) in enumerate(records):
        append(offset, timestamp_ms, key, value, headers)
    data: bytearray = builder.build()
    return data


class _RawName(str):
    """A header name as it was read: bytes that are not UTF-8 are surrogate escapes and become those bytes again."""

    __slots__ = ()

    def encode(self, *_: str) -> bytes:
        """The bytes as they were read."""
        return super().encode("utf-8", "surrogateescape")


def _with_raw_names(records: Iterable[OutRecord]) -> Iterator[OutRecord]:
    # Only a dead letter has such names. The builder in C takes no subclass of str; the one in Python asks it.
    for key, value, headers in records:
        yield key, value, [(_RawName(name), content) for name, content in headers]


def _lz4(batch: bytearray) -> bytearray:
    """Compress the records of a batch at lz4's level 1: a tenth of the CPU of level 9, all that aiokafka offers.

    The frame is put together here: a compressor's own state costs more than a small batch. Length, attributes and
    checksum are set anew; layout: Kafka's "Record Batch" of message format v2, and lz4's frame format.
    """
    packed = batch[:_BATCH_HEADER]
    packed += _FRAME
    for at in range(_BATCH_HEADER, len(batch), _BLOCK_BYTES):
        block = batch[at : at + _BLOCK_BYTES]
        smaller = lz4.compress_block(block, store_size=False)
        if len(smaller) < len(block):
            packed += _BLOCK.pack(len(smaller))
            packed += smaller
        else:
            packed += _BLOCK.pack(len(block) | _STORED)
            packed += block
    packed += _END_OF_FRAME
    _LENGTH.pack_into(packed, _LENGTH_AT, len(packed) - _LENGTH_AT - _LENGTH.size)
    (attributes,) = _ATTRIBUTES.unpack_from(packed, _ATTRIBUTES_AT)
    _ATTRIBUTES.pack_into(packed, _ATTRIBUTES_AT, attributes | COMPRESSIONS["lz4"])
    _CHECKSUM.pack_into(packed, _CHECKSUM_AT, calc_crc32c(memoryview(packed)[_ATTRIBUTES_AT:]))
    return packed
