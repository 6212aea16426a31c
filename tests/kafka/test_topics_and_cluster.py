"""Creating topics, and writing to a topic that is not known yet: in order, again and again until it works."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import errors as kafka_errors

from devtools.kafka import Brokers
from pipeline.errors import MissingTopics, StagerClosed
from pipeline.kafka import cluster as cluster_module
from pipeline.kafka.cluster import Cluster
from pipeline.kafka.producer import Producer, ProducerOptions
from pipeline.kafka.topics import (
    TopicKeeper,
    TopicSpec,
    TopicSpecs,
    create,
    describe,
    missing,
    partition_counts,
)
from pipeline.settings import Settings
from tests.client.broker_rules import delete_topic
from tests.kafka.producing import Told, connection, eventually, producing, values_on

pytestmark = pytest.mark.kafka


def settings(bootstrap: str, *, autocreate: bool = True, replication: int = 0) -> Settings:
    """Settings with what topics depend on."""
    return Settings(
        brokers=tuple(bootstrap.split(",")),
        catalog="x",
        cloudevents_source="/x",
        topic_partitions=3,
        topics_autocreate=autocreate,
        topic_replication=replication,
    )


def keeper(
    producer: Producer, bootstrap: str, *, autocreate: bool = True, replication: int = 0
) -> TopicKeeper:
    """A keeper of topics."""
    chosen = settings(bootstrap, autocreate=autocreate, replication=replication)
    return TopicKeeper(producer, connection(bootstrap), chosen)


@asynccontextmanager
async def cluster_for(bootstrap: str, *, autocreate: bool = True) -> AsyncIterator[Cluster]:
    """A cluster as the worker has it, closed at the end."""
    producer = Producer(connection(bootstrap), ProducerOptions())
    await producer.start()
    cluster = Cluster(producer, keeper(producer, bootstrap, autocreate=autocreate))
    try:
        yield cluster
    finally:
        await cluster.close(5.0)


# --- creating


async def test_topics_are_created_as_they_must_be(kafka: Brokers, namespace: str) -> None:
    """S5: partitions from the settings, room for the largest framed record, 64 KiB more and no end for what is kept;
    a topic that is there already stays as it is."""
    conn, specs = connection(kafka.bootstrap), TopicSpecs(settings(kafka.bootstrap))
    names = [f"{namespace}.{kind}" for kind in ("staging", "target", "dlq")]
    wanted = [specs.staging(names[0]), specs.target(names[1]), specs.kept(names[2], 5)]
    assert await missing(conn, names) == sorted(names)
    for _ in range(2):
        await create(conn, wanted, 0)
    await create(conn, [TopicSpec(names[1], 9)], 1)
    assert await missing(conn, names) == []
    assert await partition_counts(conn, [*names, "absent"]) == {names[0]: 3, names[1]: 3, names[2]: 5}
    states = await describe(conn, names)
    room = [states[name].max_message_bytes for name in names]
    assert room[0] == room[1] >= settings(kafka.bootstrap).max_record_bytes
    assert room[2] == room[0] + 65_536


async def test_what_the_broker_refuses_to_create_is_named(kafka: Brokers, namespace: str) -> None:
    """O2, N4: a refusal names each topic and the broker's reason; the others are created."""
    names = [f"{namespace}.good", f"{namespace}.bad", f"{namespace} worse"]
    specs = [TopicSpec(names[0], 1), TopicSpec(names[1], 1, {"retention.ms": "much"}), TopicSpec(names[2], 1)]
    with pytest.raises(MissingTopics) as refused:
        await create(connection(kafka.bootstrap), specs, 1)
    assert [problem.split(":")[0] for problem in sorted(refused.value.problems)] == sorted(names[1:])
    assert await missing(connection(kafka.bootstrap), names) == sorted(names[1:])
    with pytest.raises(MissingTopics, match="eplication"):
        await create(connection(kafka.bootstrap), [TopicSpec(f"{namespace}.many", 1)], 99)


async def test_a_keeper_creates_where_it_may(kafka: Brokers, namespace: str) -> None:
    """E (`TOPICS_AUTOCREATE`, `TOPIC_REPLICATION`), C1: one keeper creates what is missing and knows its count at
    once; another says that it is missing; a third is refused, and says by whom."""
    spec = TopicSpec(f"{namespace}.wanted", 4)
    async with producing(kafka.bootstrap) as producer:
        with pytest.raises(kafka_errors.UnknownTopicOrPartitionError):
            await keeper(producer, kafka.bootstrap, autocreate=False).partitions(spec, timeout_s=10.0)
        with pytest.raises(MissingTopics, match=spec.name):
            await keeper(producer, kafka.bootstrap, replication=99).partitions(spec, timeout_s=10.0)
        able = keeper(producer, kafka.bootstrap)
        together = await asyncio.gather(*(able.partitions(spec, timeout_s=10.0) for _ in range(3)))
        assert together == [4, 4, 4]
        assert await keeper(producer, kafka.bootstrap, autocreate=False).partitions(spec, timeout_s=1.0) == 4


async def test_a_keeper_does_not_wait_longer_than_it_may() -> None:
    """S7: without a broker the answer is a `TimeoutError` in time."""
    async with producing("127.0.0.1:1") as producer:
        with pytest.raises(TimeoutError):
            await keeper(producer, "127.0.0.1:1").partitions(TopicSpec("t", 1), timeout_s=0.3)
        with pytest.raises(kafka_errors.KafkaConnectionError):
            await missing(connection("127.0.0.1:1"), ["t"])


# --- writing to what is not known yet


async def test_what_waits_for_its_topic_goes_first(kafka: Brokers, namespace: str) -> None:
    """T5, Q1: parcels for a topic that has to be created are written in the order in which they were put, before
    those that are put once it is known; the partition follows from the hash and the real partition count."""
    spec = TopicSpec(f"{namespace}.created", 2)
    async with cluster_for(kafka.bootstrap) as cluster:
        parcels = []

        def put(number: int, hashed: int) -> None:
            parcels.append(Told(b"%d" % number))
            cluster.put_when_known(spec, hashed, parcels[-1])

        def put_more() -> None:
            assert cluster.partitions == {spec.name: 2}
            for number in range(10, 20):
                put(number, 6 + number % 3)

        cluster.learn(spec, put_more)  # before the others: it is told before they are written
        for number in range(10):
            put(number, 6 + number % 3)  # partitions 0, 1, 0
        await eventually(lambda: len(parcels) == 20, "the topic to be known")
        for parcel in parcels:
            await parcel.wait()
        put(20, 1)
        await parcels[-1].wait()
        assert cluster.partitions == {spec.name: 2}
    on_topic = await asyncio.to_thread(values_on, kafka.bootstrap, spec.name)
    assert on_topic[0] == [b"%d" % number for number in range(20) if number % 3 != 1]
    assert on_topic[1] == [b"%d" % number for number in [*(n for n in range(20) if n % 3 == 1), 20]]


async def test_a_topic_that_somebody_deletes_is_created_again(kafka: Brokers, namespace: str) -> None:
    """Q4: an operator deletes a dead-letter topic, to be rid of what is in it. The next dead letter makes it anew, as
    it was: it was tried for ever, and its staging partition waited, until the worker was started again."""
    async with cluster_for(kafka.bootstrap) as cluster:
        spec = TopicSpecs(settings(kafka.bootstrap)).kept(f"{namespace}.order.dlq", 2)
        first, second = Told(b"a"), Told(b"b")
        cluster.put_when_known(spec, 1, first)
        await first.wait()
        await asyncio.to_thread(delete_topic, kafka.bootstrap, spec.name)
        cluster.put_when_known(spec, 1, second)
        await second.wait()
    states = await describe(connection(kafka.bootstrap), [spec.name])
    assert states[spec.name].partitions == 2
    assert await asyncio.to_thread(values_on, kafka.bootstrap, spec.name) == {1: [b"b"]}


async def test_learning_goes_on_until_it_succeeds(
    kafka: Brokers, namespace: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """T5, Q4: a topic that must not be created is asked for again and again, each time with a warning that names
    it; also after an exception that nobody foresaw. What was withdrawn meanwhile is not written."""
    monkeypatch.setattr(cluster_module, "_PAUSE_S", 0.05)
    spec = TopicSpec(f"{namespace}.later", 1)
    async with cluster_for(kafka.bootstrap, autocreate=False) as cluster:
        ask = cluster._keeper.partitions
        bugs = iter([RuntimeError("a bug"), None, None, None])

        async def buggy(spec: TopicSpec, *, timeout_s: float | None) -> int:
            bug = next(bugs, None)
            if bug is not None:
                raise bug
            return await ask(spec, timeout_s=timeout_s)

        monkeypatch.setattr(cluster._keeper, "partitions", buggy)
        gone, kept = Told(b"gone"), Told(b"kept")
        for parcel in (gone, kept):
            cluster.put_when_known(spec, 0, parcel)
        learnt = asyncio.Event()
        cluster.learn(spec, learnt.set)
        await eventually(lambda: caplog.text.count(f"topics.unusable topic={spec.name}") >= 3, "warnings")
        assert "a bug" in caplog.text
        cluster.withdraw({gone})
        await create(connection(kafka.bootstrap), [spec], 1)
        await kept.wait()
        assert learnt.is_set()
        assert not gone.done.is_set()
    assert await asyncio.to_thread(values_on, kafka.bootstrap, spec.name) == {0: [b"kept"]}


async def test_counts_follow_the_metadata(kafka: Brokers, namespace: str) -> None:
    """T4: counts are taken from the metadata at hand for the topics asked about, and forgotten for a topic that
    is gone; without any metadata nothing is forgotten."""
    spec = TopicSpec(f"{namespace}.counted", 3)
    await create(connection(kafka.bootstrap), [spec], 1)
    async with cluster_for(kafka.bootstrap) as cluster:
        cluster.partitions["gone"] = 7
        cluster.know_existing([spec.name, "gone"])
        assert cluster.partitions == {"gone": 7}
        assert await cluster.know(spec) == 3
        cluster.partitions.pop(spec.name)
        cluster.know_existing([spec.name, "gone"])
        assert cluster.partitions == {spec.name: 3}


async def test_closing_gives_up_what_waits_for_its_topic(caplog: pytest.LogCaptureFixture) -> None:
    """T5, S9: no record waits for ever: what was held back for a topic nobody has seen is told when the cluster
    closes, in time, and the attempts to learn the topic end."""
    caplog.set_level(logging.CRITICAL, "pipeline")
    async with cluster_for("127.0.0.1:1") as cluster:
        parcel = Told(b"x", b"y")
        cluster.put_when_known(TopicSpec("t", 1), 0, parcel)
        cluster.learn(TopicSpec("u", 1), lambda: pytest.fail("nobody answered"))
        await asyncio.sleep(0)
        async with asyncio.timeout(2.0):
            await cluster.close(0.1)
        assert [type(error) for error in parcel.failures.values()] == [StagerClosed] * 2
        assert not cluster._learning or all(task.done() for task in cluster._learning.values())
