"""Staging records of the shop's events for real workers, and the raw way onto and off a topic.

librdkafka writes no null header and no header name that is not UTF-8, and its Python client cannot read one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer import fetcher
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.structs import TopicPartition
from confluent_kafka import Message, Producer

from pipeline.kafka.encoding import Identity, encode
from pipeline.kafka.reading import read_any_header_name
from pipeline.record import RawHeader
from tests.kafka_client import OutRecord, committed, partition_count, wait_until
from tests.worker_harness import WorkerProcess

CATALOG = "tests.catalogs.shop"
_SOUND = {
    "version": b"1",
    "definition": b"order.created",
    "time": b"2026-01-02T03:04:05Z",
    "source": b"//shop/web",
}


def staged(
    event_id: str,
    changes: Mapping[str, bytes] | None = None,
    *,
    without: str = "",
    more: Sequence[tuple[str, bytes]] = (),
    value: bytes | None = b"{}",
    key: bytes | None = None,
    partition: int = -1,
) -> OutRecord:
    """A staging record of `order.created`, as a foreign producer writes it: without a seal."""
    fields = {**_SOUND, "id": event_id.encode(), **(changes or {})}
    headers = [(f"stage-{name}", content) for name, content in fields.items() if name != without]
    if key is None:
        key = fields.get("tenant") or fields.get("subject") or fields["id"]
    return OutRecord(key, value, [*headers, *more], partition)


def wait_committed(
    worker: WorkerProcess,
    bootstrap: str,
    namespace: str,
    places: Sequence[tuple[int, int]],
    timeout: float = 60.0,
) -> None:
    """Wait until the worker has committed all these (partition, offset) of its staging topic; it must not end."""
    wanted: dict[int, int] = {}
    for partition, offset in places:
        wanted[partition] = max(wanted.get(partition, 0), offset + 1)

    def reached() -> bool:
        assert worker.exit_status is None, (
            f"the worker ended with {worker.exit_status}:\n{worker.log_tail(200)}"
        )
        found = committed(bootstrap, f"{namespace}-pipeline", f"{namespace}.staging")
        return all(found.get(partition, -1) >= offset for partition, offset in wanted.items())

    wait_until(reached, timeout, f"the commit of {wanted}")


def produce_raw(
    bootstrap: str, topic: str, partition: int, key: bytes, value: bytes | None, headers: Sequence[RawHeader]
) -> tuple[int, int]:
    """Write one record with any headers; returns (partition, offset)."""

    async def send() -> int:
        client = AIOKafkaClient(bootstrap_servers=bootstrap)
        try:
            await client.bootstrap()
            await client.set_topics([topic])
            leader = client.cluster.leader_for_partition(TopicPartition(topic, partition))
            data = encode([(key, value, headers)], "none", Identity(-1, -1), -1, 1_767_323_045_000)
            request = ProduceRequest(
                transactional_id=None,
                required_acks=-1,
                timeout=10_000,
                topics=[(topic, [(partition, bytes(data))])],
            )
            ((_, ((_, code, offset, *_),)),) = (await client.send(leader, request)).topics
            assert code == 0, f"the broker refused the record: {code}"
            return int(offset)
        finally:
            await client.close()

    return partition, asyncio.run(send())


def produce_in_transaction(
    bootstrap: str, topic: str, record: OutRecord, name: str, *, commit: bool
) -> tuple[int, int]:
    """Write one record in a transaction and commit or abort it; returns (partition, offset)."""
    producer = Producer(
        {"bootstrap.servers": bootstrap, "transactional.id": name, "partitioner": "murmur2_random"}
    )
    places: list[tuple[int, int]] = []

    def delivered(error: object, message: Message) -> None:
        assert error is None
        places.append((message.partition() or 0, message.offset() or 0))

    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, record.value, record.key, headers=list(record.headers), on_delivery=delivered)
    producer.flush(30)
    if commit:
        producer.commit_transaction(30)
    else:
        producer.abort_transaction(30)
    return places[0]


RawRecord = tuple[int, bytes | None, bytes | None, list[RawHeader]]


def read_raw(bootstrap: str, topic: str) -> list[RawRecord]:
    """All records of a topic, with any headers: partition, key, value, headers."""

    async def read() -> list[RawRecord]:
        consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            parts = [TopicPartition(topic, number) for number in range(partition_count(bootstrap, topic))]
            ends = await consumer.end_offsets(parts)
            consumer.assign([part for part in parts if ends[part]])
            found: list[RawRecord] = []
            while len(found) < sum(ends.values()):
                for part, records in (await consumer.getmany(timeout_ms=1_000)).items():
                    found += [(part.partition, r.key, r.value, list(r.headers)) for r in records]
            return found
        finally:
            await consumer.stop()

    with _any_header_name():
        return asyncio.run(read())


@contextmanager
def _any_header_name() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetcher, "MemoryRecords", fetcher.MemoryRecords)
        patch.setattr(fetcher, "PartitionRecords", fetcher.PartitionRecords)
        read_any_header_name()
        yield
