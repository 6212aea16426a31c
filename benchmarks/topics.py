"""The topics of a benchmark: made, filled, measured and read back by librdkafka, which no contender of ours shares.

Owns: staging records on the topic, how far targets have grown, and the proof that what arrived is complete and in
order. Must not know: who moved it.
"""

from __future__ import annotations

import base64
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    NewTopic,
    OffsetSpec,
)

from benchmarks.load import PARTITIONS, Event, catalog, event, number_of, staging_headers

__all__ = ["Ends", "Lost", "Make", "Topics"]

Make = Callable[[int], Event]
"""Makes event number N."""

Ends = dict[tuple[str, int], int]
"""The end offset of each partition."""
_SLOWEST = 10_000
"""Records a second that must be read back, at least."""
_ID_HEADERS = ("ce_id", "stage-id")


class Lost(Exception):
    """A round lost, doubled, altered or reordered events: it has failed, however fast it was."""


class Topics:
    """The topics of one cluster. Blocks; raises librdkafka's errors."""

    def __init__(self, servers: str) -> None:
        self.servers = servers
        self._admin = AdminClient({"bootstrap.servers": servers})
        self._common = {"bootstrap.servers": servers, "log_level": 3}

    def create(self, names: Iterable[str], partitions: int = PARTITIONS) -> set[str]:
        """Create what is missing; which it was."""
        missing = set(names) - set(self._admin.list_topics(timeout=10).topics)
        config = {"max.message.bytes": "2000000"}
        if missing:
            asked = self._admin.create_topics(
                [NewTopic(name, partitions, 1, config=config) for name in missing]
            )
            for done in asked.values():
                done.result(30)
        return missing

    def fill(self, topic: str, numbers: range, make: Make = event, fingerprint: str = "") -> None:
        """Put staging records of these events on a topic, keys hashed by librdkafka's own murmur2.

        `fingerprint`: of the catalog they are made for, where that is not the catalog of flights.
        """
        fingerprint = fingerprint or catalog("bench").fingerprint
        producer = self.producer(linger_ms=20)
        for number in numbers:
            one = make(number)
            headers: list[Any] = [*staging_headers(one, fingerprint)]
            while True:
                try:
                    producer.produce(topic, one.payload, one.tenant, headers=headers)
                    break
                except BufferError:
                    producer.poll(0.1)
            if number % 1_000 == 0:
                producer.poll(0)
        if producer.flush(60):
            raise RuntimeError(f"the broker did not take all of {topic}: look at its log")

    def producer(self, *, linger_ms: float) -> Producer:
        """A producer of staging records."""
        return Producer(
            self._common
            | {
                "acks": "all",
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "compression.type": "lz4",
                "linger.ms": linger_ms,
                "batch.size": 500_000,
                "queue.buffering.max.messages": 200_000,
            }
        )

    def ends(self, names: Sequence[str], partitions: int = PARTITIONS) -> Ends:
        """Where each partition ends now."""
        latest: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        wanted = {TopicPartition(name, p): latest for name in names for p in range(partitions)}
        limit = time.monotonic() + 60
        while True:
            asked = self._admin.list_offsets(wanted, request_timeout=5)
            try:
                return {(at.topic, at.partition): done.result().offset for at, done in asked.items()}
            except KafkaException:  # librdkafka may not know the leaders of new topics yet
                if time.monotonic() > limit:
                    raise
                time.sleep(0.2)

    def forget_group(self, group: str) -> None:
        """Delete a consumer group, so that its next member begins at the first record."""
        limit = time.monotonic() + 60  # a fresh broker makes its own topic of groups first
        while True:
            # Asked while the broker has no such topic yet, librdkafka now and then hears of the coordinator never.
            asked = self._admin.delete_consumer_groups([group], request_timeout=2)
            try:
                asked[group].result(10)
            except (KafkaException, TimeoutError) as error:
                if "GROUP_ID_NOT_FOUND" in str(error):
                    return
                if time.monotonic() > limit:
                    raise
                time.sleep(0.5)  # its last member has not left yet
            else:
                return

    def verify(self, before: Ends, after: Ends, numbers: range, make: Make = event) -> None:
        """Raise `Lost` unless exactly these events arrived, unaltered, each tenant's of a topic in order."""
        spans = {at: (before.get(at, 0), end) for at, end in after.items() if end > before.get(at, 0)}
        count = sum(end - start for start, end in spans.values())
        if count != len(numbers):
            raise Lost(f"{count} records arrived of {len(numbers)} events")
        checksum = sum(zlib.crc32(make(number).payload) for number in numbers)
        seen = bytearray(len(numbers))
        last: dict[tuple[str, bytes], int] = {}
        for message in self._read(spans):
            number = _number(message.headers() or [])
            at = (message.topic(), message.key())
            if number <= last.get(at, -1):
                raise Lost(f"{at}: event {number} stands behind {last[at]}")
            last[at] = number
            if number not in numbers:
                raise Lost(f"{at}: event {number} was never staged")
            seen[numbers.index(number)] = 1
            checksum -= zlib.crc32(message.value())
        arrived = seen.count(1)
        if arrived != count or checksum:
            raise Lost(f"{count - arrived} events came twice, or a payload was altered")

    def _read(self, spans: dict[tuple[str, int], tuple[int, int]]) -> Iterable[Any]:
        consumer = Consumer(
            self._common
            | {
                "group.id": "bench-verify",
                "enable.auto.commit": False,
                "fetch.min.bytes": 1,
                "queued.max.messages.kbytes": 65_536,
            }
        )
        consumer.assign([TopicPartition(*at, start) for at, (start, _) in spans.items()])
        left = sum(end - start for start, end in spans.values())
        limit = time.monotonic() + 60 + left / _SLOWEST
        try:
            while left:
                for message in consumer.consume(5_000, timeout=1.0):
                    if message.error():
                        raise KafkaException(message.error())
                    at: Any = (message.topic(), message.partition())
                    if (message.offset() or 0) < spans[at][1]:
                        left -= 1
                        yield message
                if time.monotonic() > limit:
                    raise Lost(f"{left} records could not be read back in time")
        finally:
            consumer.close()


def _number(headers: Sequence[tuple[str, bytes]]) -> int:
    for name, value in headers:
        if name in _ID_HEADERS:
            # Kafka Connect's header converter writes bytes as base 64.
            return number_of(value if value.count(b"-") == 4 else base64.b64decode(value))
    raise Lost("a record has neither ce_id nor stage-id")
