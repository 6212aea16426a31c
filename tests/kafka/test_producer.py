"""The producer on a real broker that is well: batches, order, refusals, codecs, and what its own mistakes cost."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import errors as kafka_errors
from aiokafka.protocol.transaction import InitProducerIdRequest
from confluent_kafka.admin import AdminClient

from devtools.kafka import Brokers
from pipeline.errors import ErrorClass, StagerClosed, classify
from pipeline.kafka import node as node_module
from pipeline.kafka import producer as producer_module
from pipeline.kafka.client import Client
from pipeline.kafka.encoding import COMPRESSIONS, encode
from pipeline.kafka.producer import Producer, ProducerOptions
from pipeline.kafka.topics import TopicSpec, create
from tests.kafka.producing import Told, Wire, connection, eventually, producing, values_on
from tests.kafka_client import create_topic, read_all

pytestmark = pytest.mark.kafka

_ATTRIBUTES = struct.Struct(">h")


async def topic_with(kafka: Brokers, name: str, partitions: int, **config: str) -> str:
    """A topic that every leader is ready for."""
    await asyncio.to_thread(
        create_topic,
        kafka.bootstrap,
        name,
        partitions,
        {key.replace("_", "."): value for key, value in config.items()},
    )
    async with producing(kafka.bootstrap) as producer:
        assert await producer.partitions(name) == partitions
    return name


async def warm(producer: Producer, topic: str, partitions: int) -> None:
    """Write to every partition once, so that connection, leaders and producer id are there."""
    parcels = [put(producer, topic, partition, b"warm") for partition in range(partitions)]
    for parcel in parcels:
        await parcel.wait()


def put(
    producer: Producer, topic: str, partition: int, *values: bytes | None, deadline: float | None = None
) -> Told:
    """Hand values over as one parcel."""
    parcel = Told(*values, deadline=deadline)
    producer.put(producer.lane(topic, partition), parcel)
    return parcel


# --- which records share a batch, and a request


async def test_concurrent_puts_share_and_a_lone_put_does_not_wait(
    kafka: Brokers, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E (`BATCH_LINGER_MS`), T5: what is put in one turn of the loop is one batch per partition and one request;
    with nothing under way a record is sent at once, however long the linger; while a request is under way
    others wait for its end. One batch per partition is unresolved at a time."""
    topic = await topic_with(kafka, f"{namespace}.shared", 3)
    async with producing(kafka.bootstrap, ProducerOptions(linger_s=60.0)) as producer:
        await warm(producer, topic, 3)
        wire = Wire(producer, monkeypatch)

        async def caller(number: int) -> None:
            await put(producer, topic, number % 3, b"%d" % number).wait()

        await asyncio.gather(*(caller(number) for number in range(30)))
        assert [[partition for _, partition, _ in batches] for batches in wire.requests] == [[0, 1, 2]]

        began = time.monotonic()
        await put(producer, topic, 0, b"alone").wait()
        assert time.monotonic() - began < 5
        assert len(wire.requests) == 2

        wire.answers.clear()
        held = put(producer, topic, 0, b"held")
        await wire.seen(3)
        behind = [put(producer, topic, partition, b"behind") for partition in (0, 1, 2)]
        await put_back(producer)
        assert len(wire.requests) == 3
        wire.answers.set()
        for parcel in (held, *behind):
            await parcel.wait()
        assert len(wire.requests) == 4
    on_topic = await asyncio.to_thread(values_on, kafka.bootstrap, topic)
    assert on_topic[1] == [b"warm", *(b"%d" % number for number in range(1, 30, 3)), b"behind"]


async def put_back(producer: Producer) -> None:
    """Let the producer have some turns."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_without_linger_requests_overlap_but_not_on_a_partition(
    kafka: Brokers, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E (`BATCH_LINGER_MS`), T5: with no linger a second partition does not wait for the first; at most five requests
    are under way to a broker; the next batch of a partition waits for the answer to the one before it."""
    topic = await topic_with(kafka, f"{namespace}.overlap", 8)
    async with producing(kafka.bootstrap, ProducerOptions(linger_s=0.0)) as producer:
        await warm(producer, topic, 8)
        wire = Wire(producer, monkeypatch)
        wire.answers.clear()
        parcels = []
        for partition in range(8):
            parcels += [put(producer, topic, partition, b"a"), put(producer, topic, partition, b"b")]
            await put_back(producer)
            parcels.append(put(producer, topic, 0, b"c"))
            await put_back(producer)
        assert [[at for _, at, _ in batches] for batches in wire.requests] == [[0], [1], [2], [3], [4]]
        wire.answers.set()
        for parcel in parcels:
            await parcel.wait()
        assert sorted(at for batches in wire.requests[5:] for _, at, _ in batches) == [0, 5, 6, 7]
    on_topic = await asyncio.to_thread(values_on, kafka.bootstrap, topic)
    assert on_topic[0] == [b"warm", b"a", b"b", *[b"c"] * 8]


async def test_a_request_has_a_limit(kafka: Brokers, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """S5: what does not fit into one request goes into the next at once, even while the linger is long."""
    topic = await topic_with(kafka, f"{namespace}.limit", 6)
    monkeypatch.setattr(node_module, "_MAX_REQUEST_BYTES", 2_500)
    async with producing(kafka.bootstrap, ProducerOptions(linger_s=60.0)) as producer:
        await warm(producer, topic, 6)
        wire = Wire(producer, monkeypatch)
        began = time.monotonic()
        parcels = [put(producer, topic, partition, os.urandom(1_000)) for partition in range(6)]
        for parcel in parcels:
            await parcel.wait()
        assert time.monotonic() - began < 5
        assert [len(batches) for batches in wire.requests] == [3, 3]


# --- what a broker refuses


async def test_a_refused_record_harms_no_neighbour(kafka: Brokers, namespace: str) -> None:
    """C3, T5: a record larger than the topic takes, in the middle of a batch, is told `refused` as a serialization
    error; its neighbours are delivered in order, once, and so is the next event on that partition."""
    topic = await topic_with(kafka, f"{namespace}.small", 2, max_message_bytes="2000")
    values = [b"%03d" % number for number in range(100)]
    values[50] = values[99] = os.urandom(3_000)
    async with producing(kafka.bootstrap, ProducerOptions(compression="none")) as producer:
        other = put(producer, topic, 1, b"other")
        parcel = await put(producer, topic, 0, *values).wait()
        after = await put(producer, topic, 0, b"after").wait()
        await other.wait()
        assert parcel.refusals.keys() == {50, 99}
        assert {classify(error) for error in parcel.refusals.values()} == {ErrorClass.SERIALIZATION}
        assert parcel.acks == {index: index - (index > 50) for index in range(99) if index != 50}
        assert after.acks == {0: 98}
        assert producer.troubled_lanes() == []
    on_topic = await asyncio.to_thread(values_on, kafka.bootstrap, topic)
    assert on_topic == {0: [*(v for v in values if len(v) == 3), b"after"], 1: [b"other"]}


async def test_a_batch_damaged_on_its_way_is_sent_again(
    kafka: Brokers, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C3: a broker finds a batch corrupt, twice: it is sent again, in order and once, and no record is refused. What
    is damaged each time ends as refused."""
    topic = await topic_with(kafka, f"{namespace}.damaged", 2)
    async with producing(kafka.bootstrap) as producer:
        await warm(producer, topic, 2)
        begin, left = producer._session.begin, {0: 2, 1: 1_000}

        def damage(node: int, request: Any) -> object:
            """Turn a bit of the last byte of each batch that is to be damaged."""
            for _, batches in request._topics:
                for at, (partition, data) in enumerate(batches):
                    if left[partition]:
                        left[partition] -= 1
                        batches[at] = (partition, bytes(data[:-1]) + bytes([data[-1] ^ 1]))
            return begin(node, request)

        monkeypatch.setattr(producer._session, "begin", damage)
        parcel = put(producer, topic, 0, b"0", b"1", b"2")
        hopeless = put(producer, topic, 1, b"never", b"neither")
        await parcel.wait()
        await hopeless.wait()
        assert (parcel.refusals, left[0]) == ({}, 0)
        assert hopeless.refusals.keys() == {0, 1}
        assert {classify(error) for error in hopeless.refusals.values()} == {ErrorClass.SERIALIZATION}
    on_topic = await asyncio.to_thread(values_on, kafka.bootstrap, topic)
    assert on_topic == {0: [b"warm", b"0", b"1", b"2"], 1: [b"warm"]}


async def test_lost_sequence_numbers_are_found_again(
    kafka: Brokers, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """T5: where broker and producer disagree about the sequence, the batch is sent again under a new producer id,
    in order and once, without a new Producer; other partitions keep theirs."""
    topic = await topic_with(kafka, f"{namespace}.sequence", 2)
    async with producing(kafka.bootstrap) as producer:
        await warm(producer, topic, 2)
        lane, other = producer.lane(topic, 0), producer.lane(topic, 1)
        before = lane.identity
        lane._sequence += 7
        parcels = [put(producer, topic, 0, b"%d" % number) for number in range(5)]
        for parcel in parcels:
            await parcel.wait()
        assert "OutOfOrderSequenceNumber" in caplog.text
        assert (lane.identity != before, other.identity, lane.trouble) == (True, before, None)
        await warm(producer, topic, 2)
    on_topic = await asyncio.to_thread(values_on, kafka.bootstrap, topic)
    assert on_topic == {0: [b"warm", b"0", b"1", b"2", b"3", b"4", b"warm"], 1: [b"warm", b"warm"]}


async def test_a_topic_may_be_deleted_and_made_anew(kafka: Brokers, namespace: str) -> None:
    """C1, T5: while the topic is gone its events wait, with a cause that says so; once it is back they arrive,
    in order, without a restart."""
    topic = await topic_with(kafka, f"{namespace}.anew", 1)
    async with producing(kafka.bootstrap) as producer:
        await put(producer, topic, 0, b"before").wait()
        await asyncio.to_thread(_delete, kafka.bootstrap, topic)
        waiting = [put(producer, topic, 0, b"%d" % number) for number in range(3)]
        late = put(producer, topic, 0, b"late", deadline=time.monotonic() + 0.5)
        await late.wait()
        assert classify(late.failures[0]) is ErrorClass.TOPIC_NOT_FOUND
        assert [lane.topic for lane in producer.troubled_lanes()] == [topic]
        await create(connection(kafka.bootstrap), [TopicSpec(topic, 1)], 1)
        for parcel in waiting:
            await parcel.wait()
        assert producer.troubled_lanes() == []
    on_topic = await asyncio.to_thread(values_on, kafka.bootstrap, topic)
    assert on_topic == {0: [b"0", b"1", b"2"]}


def _delete(bootstrap: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.delete_topics([topic])[topic].result(20)


# --- what is written


@pytest.mark.parametrize("compression", COMPRESSIONS)
async def test_every_codec_is_readable_by_librdkafka(
    kafka: Brokers, namespace: str, compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E (`COMPRESSION`), T2: keys, values, nulls and headers arrive byte for byte under each codec."""
    topic = await topic_with(kafka, f"{namespace}.codec", 1)
    records = [
        (b"key", b"value " * 200, [("ce_id", b"1"), ("ce_id", b"2"), ("naïve", "ü".encode())]),
        (None, b"", []),
        (b"", None, [("empty", b"")]),
        (bytes(range(256)), os.urandom(500), [("content-type", b"application/json")]),
    ]
    async with producing(kafka.bootstrap, ProducerOptions(compression=compression)) as producer:
        wire = Wire(producer, monkeypatch)
        parcel = Told.of(*records)
        producer.put(producer.lane(topic, 0), parcel)
        await parcel.wait()
        (_, _, data), *_ = wire.requests[-1]
        assert _ATTRIBUTES.unpack_from(data, 21)[0] & 7 == COMPRESSIONS[compression]
    read = await asyncio.to_thread(read_all, kafka.bootstrap, topic)
    assert [(record.key, record.value, record.headers) for record in read] == records


# --- our own mistakes


async def test_a_bug_in_a_request_is_loud_and_nothing_sticks(
    kafka: Brokers, namespace: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """T5: an exception that nobody foresaw is logged with its traceback, and the batch is sent again; the broker
    recognises what it has."""
    topic = await topic_with(kafka, f"{namespace}.bug", 2)
    async with producing(kafka.bootstrap) as producer:
        await warm(producer, topic, 2)
        begin = producer._session.begin
        outcomes = iter(["raise", "lose the answer", "strange answer", "well", "well"])

        async def buggy(node: int, request: object) -> object:
            outcome = next(outcomes)
            if outcome == "raise":
                raise RuntimeError("a bug before sending")
            answer = await begin(node, request)
            if outcome == "lose the answer":
                raise RuntimeError("a bug after sending")
            return (
                SimpleNamespace(topics=[("another", [(0, 0, 0)])]) if outcome == "strange answer" else answer
            )

        monkeypatch.setattr(
            producer._session, "begin", lambda *request: asyncio.ensure_future(buggy(*request))
        )
        parcels = [put(producer, topic, partition, b"a", b"b") for partition in (0, 1)]
        for parcel in parcels:
            await parcel.wait()
        assert [parcel.acks for parcel in parcels] == [{0: 1, 1: 2}] * 2
        assert next(outcomes) == "well"
        assert caplog.text.count("produce.failed -- in an unknown way") == 3
        for cause in ("a bug before sending", "a bug after sending", "KeyError: ('another', 0)"):
            assert cause in caplog.text
    on_topic = await asyncio.to_thread(values_on, kafka.bootstrap, topic)
    assert on_topic == {0: [b"warm", b"a", b"b"], 1: [b"warm", b"a", b"b"]}


async def test_a_bug_in_the_producer_itself_does_not_stop_it(
    kafka: Brokers, namespace: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """T5: an exception while deciding what to send is logged with its traceback; all lanes go on after a pause."""
    topic = await topic_with(kafka, f"{namespace}.turn", 2)
    monkeypatch.setattr(producer_module, "_PAUSE_AFTER_A_BUG_S", 0.05)
    async with producing(kafka.bootstrap) as producer:
        await warm(producer, topic, 2)
        leader = producer._session.leader
        failures = iter([True])

        def buggy(topic: str, partition: int) -> object:
            if next(failures, False):
                raise RuntimeError("a bug in a turn")
            return leader(topic, partition)

        monkeypatch.setattr(producer._session, "leader", buggy)
        parcels = [put(producer, topic, partition, b"a") for partition in (0, 1)]
        for parcel in parcels:
            await parcel.wait()
        assert "a bug in a turn" in caplog.text


async def test_a_batch_that_cannot_be_made_holds_up_no_other(
    kafka: Brokers, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T5: where one batch of a request cannot be made, for want of memory say, those made before it are sent with the
    next one; they were taken for sent, and their partitions stood still for good."""
    topic = await topic_with(kafka, f"{namespace}.memory", 2)
    monkeypatch.setattr(producer_module, "_PAUSE_AFTER_A_BUG_S", 0.05)
    async with producing(kafka.bootstrap) as producer:
        await warm(producer, topic, 2)
        fails = iter([False, True])

        def without_memory(*batch: Any) -> bytes:
            if next(fails, False):
                raise MemoryError
            return encode(*batch)

        monkeypatch.setattr("pipeline.kafka.lane.encode", without_memory)
        for parcel in [put(producer, topic, partition, b"a") for partition in (0, 1)]:
            await parcel.wait()


async def test_no_producer_id_is_a_cause_that_callers_see(
    kafka: Brokers, namespace: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """C1: where the cluster gives out no producer id, callers are told why, the log once; later it works."""
    topic = await topic_with(kafka, f"{namespace}.id", 1)
    send = Client.send
    refusing = True

    async def refuse(client: Client, node: int, request: object) -> object:
        answer = await send(client, node, request)
        if isinstance(request, InitProducerIdRequest) and refusing:
            answer.error_code = kafka_errors.ClusterAuthorizationFailedError.errno
        return answer

    monkeypatch.setattr(Client, "send", refuse)
    async with producing(kafka.bootstrap) as producer:
        late = put(producer, topic, 0, b"late", deadline=time.monotonic() + 0.5)
        patient = put(producer, topic, 0, b"patient")
        await late.wait()
        assert classify(late.failures[0]) is ErrorClass.AUTH
        troubles = [producer.trouble]
        assert caplog.text.count("producer.no_id") == 1
        refusing = False
        await patient.wait()
        assert [*troubles, producer.trouble] == [late.failures[0], None]
    on_topic = await asyncio.to_thread(values_on, kafka.bootstrap, topic)
    assert on_topic == {0: [b"patient"]}


# --- asking and closing


async def test_partitions_of_many_topics_at_once(kafka: Brokers, namespace: str) -> None:
    """C1: the answer for one topic does not depend on who else asks meanwhile; only a missing topic is missing."""
    names = [f"{namespace}.many-{number}" for number in range(12)]
    await create(connection(kafka.bootstrap), [TopicSpec(name, 2) for name in names], 1)
    async with producing(kafka.bootstrap) as producer:
        counts: list[int | BaseException] = []

        async def ask(name: str, turns: int) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            try:
                counts.append(await producer.partitions(name))
            except kafka_errors.KafkaError as error:
                counts.append(error)

        await asyncio.gather(*(ask(name, 15 * number) for number, name in enumerate(names)))
        assert counts == [2] * 12
        assert producer.known_partitions() == dict.fromkeys(names, 2)
        with pytest.raises(kafka_errors.UnknownTopicOrPartitionError):
            await producer.partitions(f"{namespace}.absent")
        await producer.probe(names[0], 5.0)
        with pytest.raises(kafka_errors.UnknownTopicOrPartitionError):
            await producer.probe(f"{namespace}.absent", 5.0)


async def test_a_closed_producer_says_so(kafka: Brokers, namespace: str) -> None:
    """S9: close() is idempotent and sends what waits, also what was put the moment before; then every call says
    that it is closed, and those that were waiting are told."""
    topic = await topic_with(kafka, f"{namespace}.closed", 1)
    producer = Producer(connection(kafka.bootstrap), ProducerOptions())
    await producer.start()
    parcel = put(producer, topic, 0, b"last")
    await producer.close(20.0)
    await producer.close(20.0)
    assert parcel.acks == {0: 0}
    with pytest.raises(StagerClosed):
        put(producer, topic, 0, b"later")
    for asked in (producer.partitions(topic), producer.probe(topic, 5.0), producer.connected()):
        with pytest.raises(StagerClosed):
            await asked
    assert producer.known_partitions() == {}


async def test_withdrawn_parcels_are_told_nothing(
    kafka: Brokers, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T5: withdrawing takes back what waits; the others of a batch under way arrive, and the producer goes on."""
    topic = await topic_with(kafka, f"{namespace}.withdrawn", 1)
    async with producing(kafka.bootstrap) as producer:
        await warm(producer, topic, 1)
        wire = Wire(producer, monkeypatch)
        wire.answers.clear()
        gone, kept = put(producer, topic, 0, b"gone"), put(producer, topic, 0, b"kept")
        await wire.seen(1)
        waiting, behind = put(producer, topic, 0, b"waiting"), put(producer, topic, 0, b"behind")
        producer.withdraw({gone, waiting})
        await wire.seen(2)
        wire.answers.set()
        await kept.wait()
        await behind.wait()
        await eventually(lambda: not producer._busy, "the lane to be idle")
        assert not any([gone.acks, gone.failures, waiting.acks, waiting.failures])
    on_topic = await asyncio.to_thread(values_on, kafka.bootstrap, topic)
    assert b"waiting" not in on_topic[0]
    assert list(dict.fromkeys(on_topic[0])) == [b"warm", b"gone", b"kept", b"behind"]
    assert (
        on_topic[0][kept.acks[0]] == b"kept"
    )  # the answer to the request that it was first part of does not count
