"""An independent Kafka client (librdkafka), to write to a broker and to judge what is on it.

Owns: records as librdkafka sees them, writing, reading whole topics, offsets, topics. Must not know: workers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeVar

from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

__all__ = [
    "OutRecord",
    "Record",
    "committed",
    "create_topic",
    "partition_count",
    "produce",
    "read_all",
    "record_count",
    "wait_until",
]

_KAFKA_TIMEOUT_S = 30.0
_NO_LOST_CONNECTIONS = 2
"""librdkafka logs each with level 3; here brokers are killed on purpose."""
_TOO_EARLY = {
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
}

T = TypeVar("T")


class OutRecord(NamedTuple):
    """A record to produce; without a partition, librdkafka's `murmur2_random` chooses it by the key."""

    key: bytes | None
    value: bytes | None
    headers: Iterable[tuple[str, bytes]] = ()
    partition: int = -1


class Record(NamedTuple):
    """A record as librdkafka read it. `timestamp`: milliseconds since 1970."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    timestamp: int

    @property
    def header(self) -> dict[str, bytes]:
        """The headers by name; of a repeated one the last."""
        return dict(self.headers)


def wait_until(predicate: Callable[[], T], timeout: float, what: str) -> T:
    """Ask again and again until the answer is true, and return it; `AssertionError` after `timeout` seconds.

    For what another process does; an exception of `predicate` is not caught.
    """
    deadline = time.monotonic() + timeout
    while True:
        answer = predicate()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"waited {timeout:g} s in vain for {what}"
        time.sleep(0.1)


def produce(bootstrap: str, topic: str, records: Iterable[OutRecord]) -> list[tuple[int, int]]:
    """Write records, in order, with acks=all, and return (partition, offset) of each. The topic must exist."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            "message.max.bytes": 100_000_000,
            "linger.ms": 5,
            "log_level": _NO_LOST_CONNECTIONS,
        }
    )
    at: dict[int, tuple[int, int]] = {}
    errors: list[KafkaError] = []
    count = 0
    for index, record in enumerate(records):
        count += 1

        def delivered(error: KafkaError | None, message: object, index: int = index) -> None:
            if error is not None:
                errors.append(error)
            else:
                at[index] = (message.partition(), message.offset())  # type: ignore[attr-defined]

        producer.produce(
            topic,
            value=record.value,
            key=record.key,
            partition=record.partition,
            headers=list(record.headers),
            on_delivery=delivered,
        )
        producer.poll(0)
    left = producer.flush(_KAFKA_TIMEOUT_S)
    assert not errors, f"{topic} did not take {len(errors)} records: {errors[0]}"
    assert left == 0, f"{left} records for {topic} were not acknowledged in {_KAFKA_TIMEOUT_S:g} s"
    return [at[index] for index in range(count)]


def read_all(bootstrap: str, topic: str) -> list[Record]:
    """Every record that is on the topic now, by partition and offset; none where the topic does not exist."""
    consumer = _consumer(bootstrap, "stagepost-tests-reader")
    try:
        while (found := _read_all(consumer, topic)) is None:
            pass  # some were deleted meanwhile: what is there now is something else
        return sorted(found, key=lambda record: (record.partition, record.offset))
    finally:
        consumer.close()


def _read_all(consumer: Consumer, topic: str) -> list[Record] | None:
    spans = {
        partition: _watermarks(consumer, TopicPartition(topic, partition))
        for partition in range(_partitions(consumer, topic))
    }
    ends = {partition: high for partition, (low, high) in spans.items() if high > low}
    consumer.assign([TopicPartition(topic, partition, spans[partition][0]) for partition in ends])
    found: list[Record] = []
    while ends:
        message = consumer.poll(_KAFKA_TIMEOUT_S)
        assert message is not None, f"{topic} gave nothing for {_KAFKA_TIMEOUT_S:g} s; wanted {ends}"
        error = message.error()
        if error is None:
            found.append(record := _record(message))
            partition, reached = record.partition, record.offset + 1
        elif error.code() == KafkaError._PARTITION_EOF:  # behind the last record there may be markers
            partition, reached = message.partition() or 0, message.offset() or 0
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            return None
        else:
            raise KafkaException(error)
        if partition in ends and reached >= ends[partition]:
            del ends[partition]
    return found


def record_count(bootstrap: str, topic: str) -> int:
    """How many records are on a topic now, by its offsets; 0 where it does not exist."""
    consumer = _consumer(bootstrap, "stagepost-tests-counter")
    try:
        spans = [
            _watermarks(consumer, TopicPartition(topic, partition))
            for partition in range(_partitions(consumer, topic))
        ]
        return sum(high - low for low, high in spans)
    finally:
        consumer.close()


def create_topic(
    bootstrap: str,
    topic: str,
    partitions: int = 1,
    config: Mapping[str, str] | None = None,
    *,
    replicas: int = 1,
) -> None:
    """Create a topic and wait until the broker knows it."""
    admin = _admin(bootstrap)
    new = NewTopic(topic, num_partitions=partitions, replication_factor=replicas, config=dict(config or {}))
    admin.create_topics([new])[topic].result(_KAFKA_TIMEOUT_S)
    wait_until(lambda: partition_count(bootstrap, topic) == partitions, _KAFKA_TIMEOUT_S, f"topic {topic}")


def partition_count(bootstrap: str, topic: str) -> int:
    """How many partitions a topic has; 0 where it does not exist."""
    consumer = _consumer(bootstrap, "stagepost-tests-metadata")
    try:
        return _partitions(consumer, topic)
    finally:
        consumer.close()


def committed(bootstrap: str, group: str, topic: str) -> dict[int, int]:
    """The committed offset of each partition that has one."""
    admin = _admin(bootstrap)
    asked = ConsumerGroupTopicPartitions(
        group, [TopicPartition(topic, partition) for partition in range(partition_count(bootstrap, topic))]
    )
    answer = admin.list_consumer_group_offsets([asked])[group].result(_KAFKA_TIMEOUT_S)
    return {at.partition: at.offset for at in answer.topic_partitions if at.offset != OFFSET_INVALID}


def _admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": _NO_LOST_CONNECTIONS})


def _consumer(bootstrap: str, group: str) -> Consumer:
    # Never joins the group: partitions are assigned by hand and nothing is committed.
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "log_level": _NO_LOST_CONNECTIONS,
        }
    )


def _record(message: Message) -> Record:
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    headers = message.headers() or []
    pairs = headers.items() if isinstance(headers, dict) else headers
    kept = [(name, value) for name, value in pairs if isinstance(value, bytes)]
    return Record(topic, partition, offset, message.key(), message.value(), kept, message.timestamp()[1])


def _watermarks(consumer: Consumer, at: TopicPartition) -> tuple[int, int]:
    deadline = time.monotonic() + _KAFKA_TIMEOUT_S
    while True:
        try:
            return consumer.get_watermark_offsets(at, timeout=_KAFKA_TIMEOUT_S)
        except KafkaException as error:
            # A topic that was created a moment ago has no leader yet.
            if error.args[0].code() not in _TOO_EARLY or time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def _partitions(consumer: Consumer, topic: str) -> int:
    return len(consumer.list_topics(topic, timeout=_KAFKA_TIMEOUT_S).topics[topic].partitions)
