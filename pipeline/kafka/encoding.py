"""Record batches, format version 2: from records to bytes.

Owns: the call into aiokafka's batch builder, producer identity and sequence on a batch.
Must not know: where the bytes go.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from aiokafka.record.default_records import DefaultRecordBatchBuilder

from pipeline.staging import Header

__all__ = ["COMPRESSIONS", "Identity", "OutRecord", "encode", "estimate"]

OutRecord = tuple[bytes | None, bytes | None, list[Header]]
"""Key, value, headers."""

COMPRESSIONS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
_UNLIMITED = 0x7FFFFFFF
_RECORD_OVERHEAD = 24
_HEADER_OVERHEAD = 4


class Identity(NamedTuple):
    """A producer id and epoch as a broker gave them (InitProducerId)."""

    producer_id: int
    epoch: int


def estimate(record: OutRecord) -> int:
    """Upper bound of a record's bytes in a batch before compression, for header names of ASCII."""
    key, value, headers = record
    size = _RECORD_OVERHEAD + (len(key) if key else 0) + (len(value) if value else 0)
    for name, content in headers:
        size += len(name) + len(content) + _HEADER_OVERHEAD
    return size


def encode(
    records: Iterable[OutRecord], compression: str, identity: Identity, base_sequence: int, timestamp_ms: int
) -> bytes:
    """One record batch with all records, in order, all with the same timestamp in ms since 1970."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=COMPRESSIONS[compression],
        is_transactional=0,
        producer_id=identity.producer_id,
        producer_epoch=identity.epoch,
        base_sequence=base_sequence,
        batch_size=_UNLIMITED,
    )
    append = builder.append
    for offset, (key, value, headers) in enumerate(records):
        append(offset, timestamp_ms, key, value, headers)
    return builder.build()  # type: ignore[no-any-return]
