"""Reading a run's topics back, up to given end offsets.

Owns: the bounded reading, and what is taken from a record. Must not know: ledgers, what is right or wrong.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord

from catalog import OwnTopics
from catalog.errors import StagepostError
from catalog.names import DLQ_SUFFIX
from demo.accounts import Found
from pipeline.cloudevents import NotACloudEvent, read

__all__ = ["ReadBack", "ReadingStalled", "read_back"]

_STALL_S: Final = 30.0


class ReadingStalled(StagepostError):
    """Records that the broker has announced did not come."""

    def __init__(self, topics: Iterable[str]) -> None:
        self.topics = tuple(sorted(set(topics)))
        super().__init__(
            f"nothing came for {_STALL_S:g} s from {', '.join(self.topics)}: look at the broker, then run again"
        )


class ReadBack(NamedTuple):
    """All records of a run: those on the staging topic, and those where events end."""

    staged: list[Found]
    ended: list[Found]


async def read_back(servers: str, own: OwnTopics, ends: Mapping[TopicPartition, int]) -> ReadBack:
    """Read every partition from its beginning to the given end. Raises `ReadingStalled`."""
    left = {partition for partition, end in ends.items() if end}
    found = ReadBack([], [])
    consumer = AIOKafkaConsumer(
        bootstrap_servers=servers, auto_offset_reset="earliest", enable_auto_commit=False
    )
    async with consumer:
        consumer.assign(sorted(left))
        while left:
            batches = await consumer.getmany(timeout_ms=int(_STALL_S * 1000))
            if not batches:
                raise ReadingStalled(partition.topic for partition in left)
            for partition, records in batches.items():
                into = found.staged if partition.topic == own.staging else found.ended
                into += [_found(record, own) for record in records if record.offset < ends[partition]]
                if records[-1].offset + 1 >= ends[partition]:
                    left.discard(partition)
    return found


def _found(record: ConsumerRecord[bytes, bytes], own: OwnTopics) -> Found:
    coordinates = f"{record.topic}/{record.partition}/{record.offset}"
    checksum = zlib.crc32(record.value or b"")
    if record.topic == own.audit:
        entry = json.loads(record.value or b"{}")
        return Found(record.topic, entry.get("id") or coordinates, "", checksum)
    if record.topic == own.staging or record.topic.endswith(DLQ_SUFFIX):
        fields = {name: value.decode(errors="replace") for name, value in record.headers}
        return Found(
            record.topic,
            fields.get("stage-id") or coordinates,
            fields.get("stage-tenant", ""),
            checksum,
            fields.get("dlq-error-class", ""),
        )
    try:
        event = read(record.value, record.headers)
    except NotACloudEvent:
        return Found(record.topic, coordinates, "", checksum)
    return Found(record.topic, event.id, event.attributes.get("tenantid", ""), checksum)
