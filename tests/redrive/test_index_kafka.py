"""The index of a worker kept up to date from Kafka, and records read from their topics."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from catalog import OwnTopics
from devtools.kafka import Brokers
from pipeline.clock import SYSTEM_CLOCK
from pipeline.kafka.connection import Connection
from pipeline.redrive import forget
from pipeline.redrive.index import Index
from pipeline.redrive.model import Coordinates
from pipeline.redrive.records import Records
from pipeline.redrive.selection import Selection
from pipeline.redrive.store import Store
from tests.kafka_client import OutRecord, create_topic, partition_count, produce, wait_until
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


def _delete_records(bootstrap: str, topic: str, *befores: int) -> None:
    """Delete what stands before an offset, of each partition from 0 on."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    places = [TopicPartition(topic, partition, before) for partition, before in enumerate(befores)]
    for future in admin.delete_records(places).values():
        future.result(30)


def _delete_topic(bootstrap: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.delete_topics([topic]).values():
        future.result(30)
    wait_until(lambda: partition_count(bootstrap, topic) == 0, 30, "the topic to be gone")


async def _until(index: Index, wanted: dict[str, int]) -> None:
    """Wait until so many are open on each topic, by counts, groups and list alike."""
    async with asyncio.timeout(30):
        while {one.topic: one.open for one in index.queries.topics(0.0)} != wanted:  # noqa: ASYNC110 -- a thread does it
            await asyncio.sleep(0.02)
    by_topic: Counter[str] = Counter()
    for group in index.queries.groups(Selection()).largest:
        by_topic[group.topic] += group.count
    assert by_topic == wanted
    assert Counter(one.topic for one in index.queries.letters(Selection(), None, 100).letters) == wanted


async def test_what_its_topic_has_deleted_is_forgotten(
    kafka: Brokers, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """O1, Q5: exactly the dead letters that were deleted from their topics, ours and another program's, go from counts,
    groups and lists: of an index that runs, of one that is opened again, and of one built from scratch, before it says
    that it has caught up. One whose topic is gone stays, and asking does not make the topic anew."""
    monkeypatch.setattr(forget, "_EVERY_S", 0.2)
    ours, foreign, dropped = f"{namespace}.a.dlq", f"{namespace}-connect-dlq", f"{namespace}.b.dlq"
    for topic in (f"{namespace}.dlq.index", f"{namespace}.dlq.state"):
        create_topic(kafka.bootstrap, topic, 3)
    for topic in (ours, foreign, dropped):
        create_topic(kafka.bootstrap, topic, 2)
        places = produce(kafka.bootstrap, topic, [OutRecord(None, b"x", partition=n % 2) for n in range(20)])
        letters = [entry(offset, topic=topic, partition=partition) for partition, offset in places]
        produce(kafka.bootstrap, f"{namespace}.dlq.index", [OutRecord(one[:60], one) for one in letters])
    endings = [ending(at, topic=ours) for at in (0, 9)]
    produce(kafka.bootstrap, f"{namespace}.dlq.state", [OutRecord(one[:60], one) for one in endings])

    async with _running(kafka.bootstrap, namespace, tmp_path / "runs") as running:
        await _until(running, {ours: 18, foreign: 20, dropped: 20})
        _delete_records(kafka.bootstrap, dropped, 1, 1)
        await _until(running, {ours: 18, foreign: 20, dropped: 18})
        _delete_topic(kafka.bootstrap, dropped)
        _delete_records(kafka.bootstrap, ours, 3, 0)
        _delete_records(kafka.bootstrap, foreign, 4, 10)
        await _until(running, {ours: 16, foreign: 6, dropped: 18})
        left = running.queries.letters(Selection(topic=ours, partition=0, state=None), None, 100).letters
        assert offsets(left) == [9, 8, 7, 6, 5, 4, 3]
    assert partition_count(kafka.bootstrap, dropped) == 0

    _delete_records(kafka.bootstrap, foreign, 10, 10)
    async with _running(kafka.bootstrap, namespace, tmp_path / "runs") as again:
        assert {one.topic: one.open for one in again.queries.topics(0.0)} == {ours: 16, dropped: 18}
    async with _running(kafka.bootstrap, namespace, tmp_path / "anew") as anew:
        # of the topic that is gone, also what was deleted before: nobody can tell
        assert {one.topic: one.open for one in anew.queries.topics(0.0)} == {ours: 16, dropped: 20}
        produce(kafka.bootstrap, ours, [OutRecord(None, b"x", partition=0)])
        late = entry(10, topic=ours)
        produce(kafka.bootstrap, f"{namespace}.dlq.index", [OutRecord(late[:60], late)])
        await _until(anew, {ours: 17, dropped: 20})


async def test_a_topic_made_anew_keeps_its_letters(
    kafka: Brokers, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Q5: letters of a topic that was deleted and made anew are not taken for deleted, though what had been deleted of
    the old one lay at larger offsets; what the new one deletes is forgotten. In a worker that runs meanwhile, and in
    one that starts then."""
    monkeypatch.setattr(forget, "_EVERY_S", 0.2)
    topic, index_topic = f"{namespace}.a.dlq", f"{namespace}.dlq.index"
    for name in (topic, index_topic, f"{namespace}.dlq.state"):
        create_topic(kafka.bootstrap, name, 1)

    def put(count: int) -> None:
        places = produce(kafka.bootstrap, topic, [OutRecord(None, b"x")] * count)
        letters = [OutRecord(b"%d" % at, entry(at, topic=topic)) for _, at in places]
        produce(kafka.bootstrap, index_topic, letters)

    put(50)
    _delete_records(kafka.bootstrap, topic, 40)
    async with _running(kafka.bootstrap, namespace, tmp_path / "runs") as index:
        assert sorted(_open(index)) == list(range(40, 50))
        _delete_topic(kafka.bootstrap, topic)
        create_topic(kafka.bootstrap, topic, 1)
        put(5)
        await index.caught_up()
        async with _running(kafka.bootstrap, namespace, tmp_path / "restarted") as another:
            assert len(_open(another)) == 50  # of the old ones nobody can tell
        _delete_records(kafka.bootstrap, topic, 2)
        await _until(index, {topic: 13})
        assert sorted(_open(index)) == [2, 3, 4, *range(40, 50)]


async def test_much_is_forgotten_in_chunks(
    kafka: Brokers, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """O1: of more than is forgotten at once, and before it is asked again, all is forgotten; and where nobody can be
    asked, nothing is, and what was read is there all the same."""
    monkeypatch.setattr(forget, "_CHUNK", 3)
    monkeypatch.setattr(forget, "_CHUNKS", 2)
    topic = f"{namespace}.a.dlq"
    for name in (topic, f"{namespace}.dlq.index", f"{namespace}.dlq.state"):
        create_topic(kafka.bootstrap, name, 1)
    produce(kafka.bootstrap, topic, [OutRecord(None, b"x")] * 30)
    letters = [OutRecord(b"%d" % at, entry(at, topic=topic)) for at in range(30)]
    produce(kafka.bootstrap, f"{namespace}.dlq.index", letters)
    _delete_records(kafka.bootstrap, topic, 25)
    with monkeypatch.context() as patched:
        patched.setattr(forget, "_ASK_S", 0.0)
        async with _running(kafka.bootstrap, namespace, tmp_path) as index:
            assert len(_open(index)) == 30
    async with _running(kafka.bootstrap, namespace, tmp_path) as index:
        assert _open(index) == [29, 28, 27, 26, 25]


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
