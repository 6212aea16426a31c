"""Reading topics beside the group: bounds, positions, pauses, what retention deleted."""

from __future__ import annotations

import asyncio

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from devtools.kafka import Brokers
from pipeline.kafka.connection import Connection
from pipeline.kafka.reader import Bounds, Place, Reader
from tests.kafka_client import OutRecord, create_topic, produce


def _connection(kafka: Brokers) -> Connection:
    return Connection((kafka.bootstrap,), "reader-test")


async def _values(reader: Reader, count: int) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = {}
    while sum(map(len, found.values())) < count:
        for place, records in (await reader.fetch(1_000, 5.0)).items():
            found.setdefault(place.partition, []).extend(record.value for record in records)
    return found


async def test_reads_each_partition_from_its_offset(kafka: Brokers, namespace: str) -> None:
    """Partitions are read from the offsets given, in order, and from no others."""
    topic = f"{namespace}.read"
    create_topic(kafka.bootstrap, topic, 3)
    produce(kafka.bootstrap, topic, [OutRecord(None, b"%d" % i, partition=i % 3) for i in range(30)])
    async with Reader(_connection(kafka)) as reader:
        assert await reader.bounds(topic) == dict.fromkeys(range(3), Bounds(0, 10))
        reader.read_from({Place(topic, 0): 8, Place(topic, 2): 0})
        found = await _values(reader, 12)
        assert found == {0: [b"24", b"27"], 2: [b"%d" % i for i in range(2, 30, 3)]}
        assert await reader.position(Place(topic, 0)) == 10
        reader.read_from({Place(topic, 1): 9})
        assert await _values(reader, 1) == {1: [b"28"]}


async def test_a_missing_topic_has_no_bounds(kafka: Brokers, namespace: str) -> None:
    """Asking for a topic that is not there neither fails nor creates it."""
    async with Reader(_connection(kafka)) as reader:
        assert await reader.bounds(f"{namespace}.absent") == {}
        assert await reader.bounds(f"{namespace}.absent") == {}


async def test_deleted_records_are_passed_by(kafka: Brokers, namespace: str) -> None:
    """What was deleted is skipped, also where the offset given lies in it; `bounds` says what is left."""
    topic = f"{namespace}.deleted"
    create_topic(kafka.bootstrap, topic, 1)
    produce(kafka.bootstrap, topic, [OutRecord(None, b"%d" % i) for i in range(10)])
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for future in admin.delete_records([TopicPartition(topic, 0, 7)]).values():
        future.result(30)
    async with Reader(_connection(kafka)) as reader:
        assert await reader.bounds(topic) == {0: Bounds(7, 10)}
        reader.read_from({Place(topic, 0): 2})
        assert await _values(reader, 3) == {0: [b"7", b"8", b"9"]}


async def test_a_paused_partition_gives_nothing(kafka: Brokers, namespace: str) -> None:
    """A paused partition is left out of what is fetched until it is resumed, and loses nothing."""
    topic = f"{namespace}.paused"
    create_topic(kafka.bootstrap, topic, 2)
    produce(kafka.bootstrap, topic, [OutRecord(None, b"%d" % i, partition=i % 2) for i in range(10)])
    async with Reader(_connection(kafka)) as reader:
        reader.read_from({Place(topic, 0): 0, Place(topic, 1): 0})
        reader.pause(Place(topic, 1))
        assert await _values(reader, 5) == {0: [b"0", b"2", b"4", b"6", b"8"]}
        assert await reader.fetch(100, 0.2) == {}
        reader.resume(Place(topic, 1))
        assert await _values(reader, 5) == {1: [b"1", b"3", b"5", b"7", b"9"]}


async def test_a_reader_closes_at_any_moment(kafka: Brokers, namespace: str) -> None:
    """A reader closes also while it lets go of what it was told to read before: a turn of the event loop later, or
    some. aiokafka forgets then that it was cancelled, and whoever closes waits forever."""
    topic = f"{namespace}.closed"
    create_topic(kafka.bootstrap, topic, 2)
    for turns in range(4):
        reader = await Reader(_connection(kafka)).__aenter__()
        reader.read_from({Place(topic, 0): 0})
        assert await reader.fetch(1, 0.1) == {}
        reader.read_from({Place(topic, 1): 0})
        for _ in range(turns):
            await asyncio.sleep(0)
        closing = asyncio.create_task(reader.__aexit__(None, None, None))
        await asyncio.wait({closing}, timeout=10.0)
        assert closing.done(), f"{turns} turns after"
        await closing
