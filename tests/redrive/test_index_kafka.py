"""The index of a worker kept up to date from Kafka, and records read from their topics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from catalog import OwnTopics
from devtools.kafka import Brokers
from pipeline.clock import SYSTEM_CLOCK
from pipeline.kafka.connection import Connection
from pipeline.redrive.index import Index
from pipeline.redrive.model import Coordinates
from pipeline.redrive.records import Records
from pipeline.redrive.selection import Selection
from pipeline.redrive.store import Store
from tests.kafka_client import OutRecord, create_topic, produce
from tests.redrive.letters import ending, entry, offsets

pytestmark = pytest.mark.kafka


@asynccontextmanager
async def _running(bootstrap: str, namespace: str, folder: Path) -> AsyncIterator[Index]:
    index = Index(Connection((bootstrap,), "tests"), OwnTopics(namespace), folder)
    await index.start()
    try:
        async with asyncio.timeout(30):
            await index.caught_up()
            yield index
    finally:
        await index.close()


def _open(index: Index) -> list[int]:
    return offsets(index.queries.letters(Selection(), None, 100).letters)


async def test_it_follows_its_topics(kafka: Brokers, namespace: str, tmp_path: Path) -> None:
    """Q5, N4: what is on index and state topics is in the index, also what comes while it runs; after a restart it
    reads on from where it was, and where the topics are others than before it begins anew."""
    for name in ("dlq.index", "dlq.state"):
        create_topic(kafka.bootstrap, f"{namespace}.{name}", 3)
    index_topic, state_topic = f"{namespace}.dlq.index", f"{namespace}.dlq.state"

    def put(topic: str, *values: bytes) -> None:
        produce(kafka.bootstrap, topic, [OutRecord(value[:60], value) for value in values])

    put(index_topic, *(entry(n) for n in range(20)))
    put(state_topic, ending(3))
    async with _running(kafka.bootstrap, namespace, tmp_path) as index:
        assert _open(index) == [n for n in reversed(range(20)) if n != 3]
        assert index.behind == 0
        put(state_topic, ending(4))
        put(index_topic, entry(20))
        await index.caught_up()
        assert _open(index) == [n for n in reversed(range(21)) if n not in {3, 4}]
    put(index_topic, entry(21))
    async with _running(kafka.bootstrap, namespace, tmp_path) as index:
        assert _open(index)[0] == 21
        assert len(_open(index)) == 20


async def test_an_index_of_topics_that_are_gone(kafka: Brokers, namespace: str, tmp_path: Path) -> None:
    """Q5: where the topics are shorter than what was read of them, they are others: the index begins anew."""
    index_topic = f"{namespace}.dlq.index"
    for topic in (index_topic, f"{namespace}.dlq.state"):
        create_topic(kafka.bootstrap, topic, 1)
    produce(kafka.bootstrap, index_topic, [OutRecord(b"k", entry(1))])
    store = Store(tmp_path, namespace)
    store.take_in([entry(50)], [], {(index_topic, 0): 51})
    store.close()
    async with _running(kafka.bootstrap, namespace, tmp_path) as index:
        assert _open(index) == [1]


async def test_records_are_read_by_their_offsets(kafka: Brokers, namespace: str) -> None:
    """O1: any records of any partitions in one call, near each other and far apart; what is not there is left out,
    and is not waited for long."""
    topic = f"{namespace}.order.created.dlq"
    create_topic(kafka.bootstrap, topic, 2)
    produce(kafka.bootstrap, topic, [OutRecord(b"k", b"%d" % n, partition=0) for n in range(3_000)])
    produce(kafka.bootstrap, topic, [OutRecord(b"k", b"%d" % n, partition=1) for n in range(3)])
    wanted = [Coordinates(topic, 0, offset) for offset in (2_999, 0, 1, 1_500, 2_500, 3_000, 99_999)] + [
        Coordinates(topic, 1, 2),
        Coordinates(topic, 7, 0),
    ]
    started = SYSTEM_CLOCK.monotonic()
    async with Records(Connection((kafka.bootstrap,), "tests")) as records:
        found = await records.read(wanted)
        assert {(place.partition, place.offset): record.value for place, record in found.items()} == {
            (0, 0): b"0",
            (0, 1): b"1",
            (0, 1_500): b"1500",
            (0, 2_500): b"2500",
            (0, 2_999): b"2999",
            (1, 2): b"2",
        }
        assert SYSTEM_CLOCK.monotonic() - started < 8


async def test_records_are_read_on_from_where_the_last_ones_ended(kafka: Brokers, namespace: str) -> None:
    """O1: pages one after the other, in whatever order, are each read whole: behind the last one, behind a gap,
    once more, before it, and of another partition meanwhile."""
    topic = f"{namespace}.order.paid.dlq"
    create_topic(kafka.bootstrap, topic, 2)
    for partition in (0, 1):
        produce(
            kafka.bootstrap, topic, [OutRecord(b"k", b"%d" % n, partition=partition) for n in range(2_500)]
        )
    async with Records(Connection((kafka.bootstrap,), "tests")) as records:
        for first in (0, 60, 120, 700, 700, 0, 2_440):
            for partitions in ((0,), (0, 1), (1,)):
                wanted = [Coordinates(topic, at, first + n) for at in partitions for n in range(60)]
                found = await records.read(wanted)
                assert {place: int(record.value) for place, record in found.items()} == {
                    place: place.offset for place in wanted
                }
