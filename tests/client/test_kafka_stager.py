"""The real stager against a real broker: what is on the topic, who shares what, which setting does what."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import pytest

from devtools.kafka import Brokers
from pipeline import NO_DATA, Staged
from pipeline.client.kafka_stager import KafkaStager
from pipeline.errors import (
    ErrorClass,
    StagingRefused,
    is_caller_error,
)
from pipeline.partition import partition_of
from tests.client.client_events import SOURCE, settings
from tests.client.kafka_staging import ids, opened, staging
from tests.client.wire import Wire
from tests.kafka_client import OutRecord, create_topic, partition_count, produce, read_all

pytestmark = pytest.mark.kafka

# --- what is on the topic


async def test_the_record_as_librdkafka_reads_it(kafka: Brokers, namespace: str) -> None:
    """Key, value and headers are as the open format says, and the answer says where (S2, S10)."""
    async with opened(kafka, namespace, topic_partitions=3) as stager:
        before = time.time()
        staged = await stager.stage(
            "thing.happened",
            {"total": 1},
            tenant="Ünïcorp",
            subject="order/1",
            policy={"outbox": "never", "dlq": "never"},
            headers={"traceparent": "00-1-2-01"},
        )
        empty = await stager.stage("thing.happened", NO_DATA, id="e", time=datetime(2026, 1, 2, tzinfo=UTC))
        fingerprint = stager._checker._catalog.fingerprint.encode()
    found = {
        record.header["stage-id"].decode(): record for record in read_all(kafka.bootstrap, staging(namespace))
    }
    record = found[staged.id]
    moment = datetime.fromisoformat(record.header["stage-time"].decode())
    assert abs(moment.timestamp() - before) < 60
    assert dict(record.headers) == {
        "stage-version": b"1",
        "stage-source": SOURCE.encode(),
        "stage-catalog": fingerprint,
        "stage-definition": b"thing.happened",
        "stage-id": staged.id.encode(),
        "stage-time": record.header["stage-time"],
        "stage-tenant": "Ünïcorp".encode(),
        "stage-subject": b"order/1",
        "stage-policy": b"outbox=never;dlq=never",
        "traceparent": b"00-1-2-01",
    }
    assert (record.key, record.value) == ("Ünïcorp".encode(), b'{"total":1}')
    assert staged == Staged(staged.id, "topic", staging(namespace), record.partition, record.offset)
    assert (found["e"].key, found["e"].value) == (b"e", None)
    assert found["e"].header["stage-time"] == b"2026-01-02T00:00:00+00:00"
    assert empty.offset == found["e"].offset


async def test_partitions_are_those_of_other_clients(kafka: Brokers, namespace: str) -> None:
    """Any client with Kafka's default partitioner sends the same key to the same partition (T4)."""
    keys = [f"tenant-{number}" for number in range(40)] + ["ü" * 50, "x" * 256, "語"]
    async with opened(kafka, namespace, topic_partitions=7) as stager:
        ours = [await stager.stage("thing.happened", 1, tenant=key) for key in keys]
    theirs = produce(kafka.bootstrap, staging(namespace), [OutRecord(key.encode(), b"1") for key in keys])
    assert [staged.partition for staged in ours] == [partition for partition, _ in theirs]
    assert len({partition for partition, _ in theirs}) == 7


async def test_the_largest_record(kafka: Brokers, namespace: str) -> None:
    """A record of exactly MAX_RECORD_BYTES is taken by the topic we create, also far above Kafka's default (S5)."""
    for cap, payload, changes in (
        (1_040_000, 1_000_000, {}),
        (3_000_000, 2_900_000, {"max_record_bytes": 3_000_000, "max_payload_bytes": 2_900_000}),
    ):
        async with opened(kafka, f"{namespace}{cap}", compression="none", **changes) as stager:
            sizes = {"a": "a" * 60_000, "b": ""}
            if cap > 1_040_000:
                sizes = {"a": "a" * 60_000, "b": "b" * 39_000}
            bare = stager._checker.check(
                "thing.raw", b"x" * payload, tenant="t", headers=sizes | {"a": "", "b": ""}
            )
            rest = cap - payload - len(bare.key) - sum(len(n.encode()) + len(v) for n, v in bare.headers)
            sizes = {"a": "a" * min(rest, 60_000), "b": "b" * max(0, rest - 60_000)}
            await stager.stage("thing.raw", b"x" * payload, tenant="t", headers=sizes)
            sizes["b"] += "b"
            with pytest.raises(Exception, match=f"the record has {cap + 1:,} bytes") as caught:
                await stager.stage("thing.raw", b"x" * payload, tenant="t", headers=sizes)
            assert is_caller_error(caught.value)


async def test_what_the_broker_refuses(kafka: Brokers, namespace: str) -> None:
    """A record the broker refuses for its size is a caller error; its neighbours in the batch arrive (C2)."""
    create_topic(kafka.bootstrap, staging(namespace), config={"max.message.bytes": "3000"})
    async with opened(kafka, namespace, compression="none") as stager:
        calls = [
            stager.stage("thing.raw", b"x" * 10, tenant="t", id=f"small-{number}") for number in range(9)
        ]
        calls.insert(4, stager.stage("thing.raw", b"x" * 4_000, tenant="t", id="large"))
        answers = await asyncio.gather(*calls, return_exceptions=True)
        refused = answers.pop(4)
        assert isinstance(refused, StagingRefused)
        assert (refused.id, refused.error_class) == ("large", ErrorClass.SERIALIZATION)
        assert is_caller_error(refused)
        assert all(isinstance(answer, Staged) for answer in answers)
        assert await stager.health() == ("healthy", "")
    assert ids(kafka, namespace) == {f"small-{number}": 1 for number in range(9)}


# --- the topic


async def test_the_topic_that_is_created(kafka: Brokers, namespace: str) -> None:
    """NAMESPACE names the staging topic, TOPIC_PARTITIONS says into how many parts (E, N4)."""
    async with opened(kafka, namespace, topic_partitions=5):
        assert partition_count(kafka.bootstrap, staging(namespace)) == 5


async def test_replication(kafka: Brokers, namespace: str) -> None:
    """TOPIC_REPLICATION is asked for as it is: more than there are brokers is refused, by topic and reason (E)."""
    given = settings(brokers=kafka.bootstrap, namespace=namespace, topic_replication=9)
    async with KafkaStager(given) as stager:
        with pytest.raises(StagingRefused, match=rf"{namespace}\.staging.*InvalidReplicationFactor"):
            await stager.stage("thing.happened", 1)


async def test_a_missing_topic_that_may_not_be_created(kafka: Brokers, namespace: str) -> None:
    """TOPICS_AUTOCREATE=false: refused at once, naming the topic; it works once the topic is there (C2, E)."""
    given = settings(brokers=kafka.bootstrap, namespace=namespace, topics_autocreate=False)
    async with KafkaStager(given) as stager:
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(StagingRefused, match=staging(namespace)) as caught:
                await stager.stage("thing.happened", 1)
            assert time.monotonic() - began < 1.5
            assert caught.value.error_class is ErrorClass.TOPIC_NOT_FOUND
            assert is_caller_error(caught.value)
        health = await stager.health()
        assert health.state == "down"
        assert staging(namespace) in health.reason
        assert partition_count(kafka.bootstrap, staging(namespace)) == 0
        create_topic(kafka.bootstrap, staging(namespace), partitions=2)
        assert (await stager.stage("thing.happened", 1)).via == "topic"
        assert (await stager.health()).state == "healthy"


# --- batches


async def test_concurrent_callers_share_batches(kafka: Brokers, namespace: str, wire: Wire) -> None:
    """64 callers at once need far fewer requests than they have events, and all are answered (S2)."""
    async with opened(kafka, namespace) as stager:

        async def caller(number: int) -> None:
            for count in range(15):
                await stager.stage("thing.happened", count, tenant=f"t{number % 9}")

        await asyncio.gather(*(caller(number) for number in range(64)))
    assert wire.records >= 64 * 15
    assert len(wire.sent) < 64 * 15 / 8
    assert sum(ids(kafka, namespace).values()) == 64 * 15


async def test_threads_share_batches(kafka: Brokers, namespace: str, wire: Wire) -> None:
    """16 threads share requests as tasks do, and none gets another's answer (S1)."""
    async with opened(kafka, namespace) as stager:

        def caller(number: int) -> list[str]:
            return [stager.stage_blocking("thing.happened", n, id=f"{number}-{n}").id for n in range(20)]

        answers = await asyncio.gather(*(asyncio.to_thread(caller, number) for number in range(16)))
    assert answers == [[f"{number}-{n}" for n in range(20)] for number in range(16)]
    assert len(wire.sent) < 16 * 20 * 0.8
    assert ids(kafka, namespace) == {f"{number}-{n}": 1 for number in range(16) for n in range(20)}


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
async def test_compression(kafka: Brokers, namespace: str, wire: Wire, codec: str) -> None:
    """COMPRESSION is how batches are compressed; the base install can do all of them, and librdkafka reads it (E)."""
    async with opened(kafka, namespace, compression=codec) as stager:
        await stager.stage("thing.raw", b"x" * 5_000, id="i")
    assert {batch.codec for request in wire.sent for batch in request} == {codec}
    assert (sum(len(batch.data) for request in wire.sent for batch in request) > 5_000) == (codec == "none")
    (record,) = read_all(kafka.bootstrap, staging(namespace))
    assert record.value == b"x" * 5_000


async def test_batch_size_and_client_id(kafka: Brokers, namespace: str, wire: Wire) -> None:
    """BATCH_MAX_BYTES bounds a batch but for a single larger record; CLIENT_ID is what we call ourselves (E)."""
    async with opened(
        kafka, namespace, compression="none", batch_max_bytes=4_096, client_id="shop-7", topic_partitions=1
    ) as stager:
        sizes = [500] * 20 + [9_000] + [500] * 20
        await asyncio.gather(*(stager.stage("thing.raw", b"x" * size) for size in sizes))
    assert wire.client_ids == {"shop-7"}
    batches = [batch for request in wire.sent for batch in request]
    assert all(len(batch.data) <= 4_096 or batch.records == 1 for batch in batches)
    assert max(batch.records for batch in batches) > 1


@pytest.mark.parametrize(("linger", "together"), [(0, False), (10_000, True)])
async def test_linger(kafka: Brokers, namespace: str, wire: Wire, linger: int, together: bool) -> None:
    """BATCH_LINGER_MS: how long to wait for companions while a request is under way; alone, never (E)."""
    async with opened(kafka, namespace, batch_linger_ms=linger, topic_partitions=6) as stager:
        for tenant in "abcdefg":  # a new topic takes a moment to take records in every partition
            await stager.stage("thing.happened", 0, tenant=tenant)
        began = time.monotonic()
        first = await stager.stage("thing.happened", 1, tenant="a")
        assert time.monotonic() - began < 2
        wire.answers.clear()
        count = len(wire.sent)
        held = asyncio.create_task(stager.stage("thing.happened", 2, tenant="a"))
        await wire.wait_for(count + 1)
        others = [tenant for tenant in "bcdefg" if _partition(stager, tenant) != first.partition]
        waiting = [asyncio.create_task(stager.stage("thing.happened", 3, tenant=tenant)) for tenant in others]
        if not together:
            await wire.wait_for(count + 2)
        else:
            await asyncio.sleep(0.1)
            assert len(wire.sent) == count + 1
        wire.answers.set()
        await asyncio.gather(held, *waiting)
        assert len(wire.sent) == count + 2


def _partition(stager: KafkaStager, tenant: str) -> int:
    return partition_of(tenant.encode(), len(stager._direct.lanes))
