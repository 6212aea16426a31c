"""The producer while its broker is killed, frozen, or was never there: nothing hangs, nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator, Iterator

import confluent_kafka
import pytest
from aiokafka import errors as kafka_errors

from devtools.kafka import Brokers, Cluster, Node
from pipeline.errors import StagerClosed
from pipeline.kafka import client as client_module
from pipeline.kafka import connection as connection_module
from pipeline.kafka import exchange as exchange_module
from pipeline.kafka.firsts import first_offsets
from pipeline.kafka.lane import Lane
from pipeline.kafka.producer import Producer, ProducerOptions
from pipeline.kafka.topics import TopicSpec, create
from tests.kafka.producing import Told, connection, eventually, producing, values_on
from tests.kafka_client import partition_count

pytestmark = pytest.mark.kafka

_MANY = 8
_GRACE_S = 1.5
"""How much longer than its limit a close may take, on a busy machine."""


@pytest.fixture(scope="module")
def frail(kafka: Brokers) -> Iterator[Cluster]:
    """A broker that the tests here share, and leave running. It creates topics, as Kafka does by default."""
    with Cluster(extra_config={"auto.create.topics.enable": "true"}) as cluster:
        yield cluster


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that are lost after 1 s, not 10."""
    for module in (client_module, connection_module, exchange_module):
        monkeypatch.setattr(module, "REQUEST_TIMEOUT_S", 1.0)


def put(producer: Producer, topic: str, *values: bytes, patience_s: float | None = None) -> Told:
    """Hand values over as one parcel, for partition 0, to be given up after `patience_s`."""
    parcel = Told(*values, deadline=None if patience_s is None else time.monotonic() + patience_s)
    producer.put(producer.lane(topic, 0), parcel)
    return parcel


class Pump:
    """Puts numbered records on a partition without end, and keeps what became of them."""

    def __init__(self, producer: Producer, lane: Lane) -> None:
        self.parcels: list[Told] = []
        self.lane = lane
        self._producer = producer

    async def run(self) -> None:
        """Put some 400 records a second, in parcels of four."""
        while True:
            first = 4 * len(self.parcels)
            parcel = Told(*(b"%d" % number for number in range(first, first + 4)))
            self.parcels.append(parcel)
            self._producer.put(self.lane, parcel)
            await asyncio.sleep(0.01)

    async def acked(self, count: int, timeout_s: float = 20.0) -> None:
        """Wait until so many more parcels have ended."""
        target = self._ended() + count
        await eventually(lambda: self._ended() >= target, "acknowledgements", timeout_s)

    def _ended(self) -> int:
        return sum(parcel.done.is_set() for parcel in self.parcels)


@contextlib.asynccontextmanager
async def pumping(producer: Producer, topic: str, partitions: int) -> AsyncIterator[list[Pump]]:
    """A pump for each partition; at the end everything they put has been acknowledged."""
    pumps = [Pump(producer, producer.lane(topic, partition)) for partition in range(partitions)]
    tasks = [asyncio.create_task(pump.run()) for pump in pumps]
    try:
        yield pumps
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for pump in pumps:
        for parcel in pump.parcels:
            await parcel.wait(60.0)


def check(pumps: list[Pump], on_topic: dict[int, list[bytes | None]]) -> None:
    """All that was put is there, once, in order, where the acknowledgements say."""
    for pump in pumps:
        expected = list(range(4 * len(pump.parcels)))
        assert [int(value or b"-1") for value in on_topic[pump.lane.partition]] == expected
        assert [parcel.acks[index] for parcel in pump.parcels for index in range(4)] == expected


async def started(bootstrap: str) -> Producer:
    """A producer that the test closes itself."""
    producer = Producer(connection(bootstrap), ProducerOptions(compression="none"))
    await producer.start()
    return producer


async def close_in_time(producer: Producer, timeout_s: float) -> None:
    """Close, and hold that it ends in time."""
    began = time.monotonic()
    await producer.close(timeout_s)
    assert time.monotonic() - began < timeout_s + _GRACE_S


async def give_up_and_close(bootstrap: str, topic: str, connected: Producer) -> None:
    """While nothing answers: a producer that was connected and one that never was end in time, and say so."""
    never = await started(bootstrap)
    parcels = []
    for producer in (connected, never):
        for partition in range(_MANY):  # more than all buffers on the way take
            parcels.append(Told(b"x" * 900_000))
            producer.put(producer.lane(topic, partition), parcels[-1])
    asking = [asyncio.create_task(producer.partitions("never-heard-of")) for producer in (connected, never)]
    await asyncio.gather(close_in_time(connected, 0.5), close_in_time(never, 0.5))
    assert {type(parcel.failures[0]) for parcel in parcels} == {StagerClosed}
    for task in asking:
        with pytest.raises(StagerClosed):
            await asyncio.wait_for(task, 2.0)


def fault(node: Node, kind: str) -> None:
    """Kill the broker, or freeze it."""
    if kind == "killed":
        node.kill()
    else:
        node.pause()


def repair(node: Node, kind: str) -> None:
    """Bring it back, with its data."""
    if kind == "killed":
        node.start()
    else:
        node.resume()
    node.wait_ready()


async def survive(kafka: Cluster, kind: str, seconds: float) -> None:
    """A broker goes away under load and comes back: see the tests for what holds."""
    (node,) = kafka.nodes
    pumped, other, unwanted = (f"{name}-{kind}-{seconds:g}" for name in ("pumped", "other", "unwanted"))
    specs = [TopicSpec(pumped, 1), TopicSpec(other, 1), TopicSpec(unwanted, _MANY)]
    await create(connection(kafka.bootstrap), specs, 1)
    closing = await started(kafka.bootstrap)
    await put(closing, unwanted, b"before").wait()
    async with producing(kafka.bootstrap) as producer:
        await put(producer, other, b"before").wait()
        async with pumping(producer, pumped, 1) as pumps:
            (pump,) = pumps
            await pump.acked(20)
            in_flight = put(producer, other, b"in flight", patience_s=1.0)
            await asyncio.to_thread(fault, node, kind)
            began = time.monotonic()
            await eventually(lambda: pump.lane.trouble is not None, "an attempt that fails", 30.0)
            overdue = put(producer, other, b"overdue", patience_s=0.5)
            behind = put(producer, other, b"behind")
            await overdue.wait(30.0)
            assert overdue.failures
            assert not behind.done.is_set()
            with pytest.raises(TimeoutError):
                await producer.probe(other, 0.2)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await producer.partitions("never-heard-of")
            assert pump.lane in producer.troubled_lanes()
            await give_up_and_close(kafka.bootstrap, unwanted, closing)
            await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))
            await asyncio.to_thread(repair, node, kind)
            await behind.wait(60.0)
            await pump.acked(20, 60.0)
        assert producer.troubled_lanes() == []
        await producer.probe(other, 10.0)
    check(pumps, await asyncio.to_thread(values_on, kafka.bootstrap, pumped))
    on_other = (await asyncio.to_thread(values_on, kafka.bootstrap, other))[0]
    # What was under way when its time ran out may be there, and what was in one batch with it twice.
    unknown = [parcel.records[0][1] for parcel in (in_flight, overdue) if parcel.taken and not parcel.acks]
    assert [v for v in dict.fromkeys(on_other) if v not in unknown] == [
        b"before",
        *([b"in flight"] if in_flight.acks else []),
        b"behind",
    ]
    assert len(set(on_other)) == len(on_other) or unknown


async def test_a_broker_that_is_killed_and_comes_back(frail: Cluster) -> None:
    """T5, S7: everything put before, during and after the outage arrives once and in order, without a new Producer;
    what had a deadline is given up in time, and what stands behind it is delivered; asking and closing end in
    their limits although nobody answers."""
    await survive(frail, "killed", 2.0)


@pytest.mark.usefixtures("impatient")
async def test_a_broker_that_freezes(frail: Cluster) -> None:
    """T5, S7: the same for a broker that keeps its connections and says nothing for longer than a request may
    take: it reads the first attempt and the second, and appends the records once."""
    await survive(frail, "frozen", 3.0)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["killed", "frozen"])
async def test_an_outage_of_a_minute(frail: Cluster, kind: str) -> None:
    """T5, S7: the same for a minute, with the real time limit of requests."""
    await survive(frail, kind, 60.0)


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_three_brokers_fall_one_after_the_other() -> None:
    """T5: leaders move six times under load, by kill and by freeze; everything arrives once and in order."""
    with Cluster(3) as kafka:
        await create(connection(kafka.bootstrap), [TopicSpec("moving", 6)], 3)
        async with producing(kafka.bootstrap) as producer, pumping(producer, "moving", 6) as pumps:
            for round_ in range(6):
                node, kind = kafka.nodes[round_ % 3], ("killed", "frozen")[round_ % 2]
                for pump in pumps:
                    await pump.acked(20, 60.0)
                await asyncio.to_thread(fault, node, kind)
                for pump in pumps:
                    await pump.acked(20, 60.0)
                await asyncio.to_thread(repair, node, kind)
                await asyncio.to_thread(kafka.wait_ready)
        check(pumps, await asyncio.to_thread(values_on, kafka.bootstrap, "moving"))


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nobody answers: bound, so that nobody else takes it, and not listened to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


async def test_a_broker_that_was_never_there(nobody: str) -> None:
    """S9, S7, S2: starting does not wait; deadlines hold, with the cause; asking ends in its limit; so does closing,
    which tells whoever waits, and gives up the rest."""
    producer = await started(nobody)
    late, patient = put(producer, "t", b"late", patience_s=0.3), put(producer, "t", b"patient")
    await late.wait()
    assert isinstance(late.failures[0], kafka_errors.KafkaConnectionError)
    assert late.taken == 0
    assert isinstance(producer.trouble, kafka_errors.KafkaConnectionError)
    assert producer.known_partitions() == {}
    with pytest.raises(TimeoutError):
        await producer.probe("t", 0.2)
    asking = [
        asyncio.create_task(question)
        for question in (producer.connected(), producer.probe("t", 60.0), producer.partitions("t"))
    ]
    await asyncio.sleep(0)
    await close_in_time(producer, 0.3)
    assert isinstance(patient.failures[0], StagerClosed)
    for answer in await asyncio.gather(*asking, return_exceptions=True):
        assert isinstance(answer, StagerClosed)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("polite", [False, True])
async def test_a_broker_that_accepts_and_says_nothing(polite: bool) -> None:
    """S9: a port that takes connections and never answers, as a frozen broker does, or only tells its versions:
    closing ends in its limit, at any moment of getting acquainted, and leaves no connection open."""
    opened: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(writer)
        with contextlib.suppress(OSError, EOFError):
            if polite:
                *_, correlation_id = struct.unpack_from(">ihhi", await reader.readexactly(12))
                # ApiVersions v0: no error, and of one kind of request, Metadata, the versions 0 to 5.
                answer = struct.pack(">ihihhh", correlation_id, 0, 1, 3, 0, 5)
                writer.write(struct.pack(">i", len(answer)) + answer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        bootstrap = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for turns in (0, 1, 2, 5, 50, 100):
            producer = await started(bootstrap)
            parcel = put(producer, "t", b"x")
            for _ in range(turns):
                await asyncio.sleep(0.001)
            await close_in_time(producer, 0.0)
            assert isinstance(parcel.failures[0], StagerClosed)
        producer = await started(bootstrap)
        put(producer, "t", b"x")
        await eventually(lambda: producer.trouble is not None, "the first attempt to be lost")
        await close_in_time(producer, 0.2)
    finally:
        server.close()
        for writer in opened:
            writer.close()
            with contextlib.suppress(OSError):
                await asyncio.wait_for(writer.wait_closed(), 5)


async def test_asking_for_a_topic_does_not_make_one(frail: Cluster) -> None:
    """S5, N4: on brokers that create whatever they are asked for, as Kafka does by default, a missing topic stays
    missing until it is created as it must be."""
    async with producing(frail.bootstrap) as producer:
        for _ in range(2):
            with pytest.raises(kafka_errors.UnknownTopicOrPartitionError):
                await producer.partitions("absent")
        await put(producer, "absent.too", b"x", patience_s=0.5).wait()
    assert await first_offsets(connection(frail.bootstrap), ["absent.as.well"]) == {}
    other_client = confluent_kafka.Producer({"bootstrap.servers": frail.bootstrap})
    await asyncio.to_thread(other_client.list_topics, "present", timeout=10)
    await eventually(
        lambda: partition_count(frail.bootstrap, "present"), "the broker to create what is asked for"
    )
    assert partition_count(frail.bootstrap, "absent") == 0
    assert partition_count(frail.bootstrap, "absent.too") == 0
    assert partition_count(frail.bootstrap, "absent.as.well") == 0
