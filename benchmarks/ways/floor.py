"""The floor of the stack: aiokafka's `getmany` and `send_batch`, with what every record needs and nothing more.

It parses the staging headers, frames a CloudEvent of ten headers, finds the partition by murmur2 (hashed once per
tenant), sends idempotently with acks=all, and commits what is delivered. It checks nothing, creates nothing,
survives nothing. Runs until it is ended:

    python -m benchmarks.ways.floor SERVERS STAGING TARGETS-PREFIX LZ4-LEVEL
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import sys
import time
import uuid
from collections import deque

import aiokafka
import uvloop
from aiokafka.codec import lz4_encode
from aiokafka.partitioner import murmur2
from aiokafka.producer.message_accumulator import BatchBuilder

from benchmarks.load import PARTITIONS
from catalog.examples.flights import DEFINITIONS

_BATCH_BYTES = 1_048_576
_LISTS_IN_FLIGHT = 12


class _Partitions(dict[bytes, int]):
    def __missing__(self, key: bytes) -> int:
        partition: int = (murmur2(key) & 0x7FFFFFFF) % PARTITIONS
        self[key] = partition
        return partition


def _constant(prefix: str) -> dict[bytes, tuple[str, tuple[tuple[str, bytes], ...]]]:
    return {
        one.key.encode(): (
            f"{prefix}.{one.key}",
            (
                ("content-type", b"application/json"),
                ("ce_specversion", b"1.0"),
                ("ce_type", f"bench.{one.key}".encode()),
                ("ce_schemaversion", one.schema_version.encode()),
                ("ce_resourcetype", one.resource_type.encode()),
                ("ce_eventtype", one.event_type.encode()),
            ),
        )
        for one in DEFINITIONS
    }


async def _run(servers: str, staging: str, prefix: str) -> None:
    producer = aiokafka.AIOKafkaProducer(
        bootstrap_servers=servers,
        acks="all",
        enable_idempotence=True,
        compression_type="lz4",
        max_batch_size=_BATCH_BYTES,
        linger_ms=5,
    )
    consumer = aiokafka.AIOKafkaConsumer(
        staging,
        bootstrap_servers=servers,
        group_id=f"{prefix}-{uuid.uuid4()}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await producer.start()
    await consumer.start()
    definitions, partitions = _constant(prefix), _Partitions()
    pending: deque[tuple[aiokafka.TopicPartition, int, asyncio.Future[list[object]]]] = deque()
    delivered: dict[aiokafka.TopicPartition, int] = {}
    committed_at = time.monotonic()

    async def settle() -> None:
        at, offset, sent = pending.popleft()
        await sent
        delivered[at] = offset

    while True:
        fetched = await consumer.getmany(timeout_ms=500, max_records=500)
        for at, records in fetched.items():
            builders: dict[tuple[str, int], BatchBuilder] = {}
            sent = []
            for record in records:
                headers = dict(record.headers)
                topic, constant = definitions[headers["stage-definition"]]
                tenant = headers["stage-tenant"]
                framed = [
                    *constant,
                    ("ce_source", headers["stage-source"]),
                    ("ce_id", headers["stage-id"]),
                    ("ce_time", headers["stage-time"]),
                    ("ce_partitionkey", tenant),
                    ("ce_tenantid", tenant),
                ]
                target = (topic, partitions[tenant])
                builder = builders.get(target)
                if builder is None:
                    builder = builders[target] = producer.create_batch()
                builder.append(timestamp=None, key=tenant, value=record.value, headers=framed)
            for (topic, partition), builder in builders.items():
                sent.append(await producer.send_batch(builder, topic, partition=partition))
            pending.append((at, records[-1].offset + 1, asyncio.gather(*sent)))
            while len(pending) >= _LISTS_IN_FLIGHT:
                await settle()
        if not fetched:
            while pending:
                await settle()
        if delivered and time.monotonic() - committed_at > 0.5:
            await consumer.commit(delivered)
            committed_at = time.monotonic()


def main() -> None:
    """Run until ended."""
    servers, staging, prefix, level = sys.argv[1:]
    # aiokafka offers no level: it always asks lz4 for its slow level 9.
    records = importlib.import_module("aiokafka.record._crecords.default_records")
    vars(records)["lz4_encode"] = functools.partial(lz4_encode, level=int(level))
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(_run(servers, staging, prefix))


if __name__ == "__main__":
    main()
