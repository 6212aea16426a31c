"""A reader that sees a topic all along, and remembers what a deletion takes away.

Owns: reading, the ids seen. Must not know: what they are compared with.
"""

from __future__ import annotations

import threading
from contextlib import suppress

from confluent_kafka import Consumer, KafkaException, TopicPartition

from tests.kafka_client import partition_count, wait_until

__all__ = ["Witness"]


class Witness:
    """Reads a topic from its beginning on, in a thread. `header` holds the id of a record."""

    def __init__(self, bootstrap: str, topic: str, header: str) -> None:
        self.topic = topic
        self.seen: dict[str, tuple[int, int]] = {}
        """Partition and offset of each id where it stood first, in the order of each partition."""
        self._bootstrap = bootstrap
        self._header = header
        self._over = threading.Event()
        self._positions: dict[int, int] = {}
        self._thread = threading.Thread(target=self._read, name=f"witness of {topic}")

    @property
    def count(self) -> int:
        """How many offsets it has read past."""
        return sum(self._positions.values())

    def start(self) -> None:
        """Begin to read; the topic must exist."""
        self._thread.start()

    def has_seen(self, ends: dict[int, int]) -> bool:
        """Whether it has read each partition up to this offset."""
        return all(self._positions.get(partition, 0) >= end for partition, end in ends.items())

    def catch_up(self, timeout: float = 60.0) -> None:
        """Wait until it has seen all that is there now."""
        ends = _ends(self._bootstrap, self.topic)
        wait_until(lambda: self.has_seen(ends), timeout, f"the witness of {self.topic}, up to {ends}")

    def stop(self) -> None:
        """Read no further. Can be repeated."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _read(self) -> None:
        consumer = _consumer(self._bootstrap)
        partitions = range(partition_count(self._bootstrap, self.topic))
        consumer.assign([TopicPartition(self.topic, number, 0) for number in partitions])
        while not self._over.is_set():
            for message in consumer.consume(2_000, timeout=0.2):
                if message.error() is not None:
                    continue  # a broker is down: librdkafka goes on by itself
                partition, offset = message.partition() or 0, message.offset() or 0
                headers = dict(message.headers() or [])
                found = headers.get(self._header)
                if isinstance(found, bytes):
                    self.seen.setdefault(found.decode(), (partition, offset))
                self._positions[partition] = offset + 1
        consumer.close()


def _ends(bootstrap: str, topic: str) -> dict[int, int]:
    consumer = _consumer(bootstrap)
    try:
        ends: dict[int, int] = {}
        for partition in range(partition_count(bootstrap, topic)):
            while partition not in ends:
                with suppress(KafkaException):  # its leader may be moving
                    at = TopicPartition(topic, partition)
                    ends[partition] = consumer.get_watermark_offsets(at, timeout=10)[1]
        return ends
    finally:
        consumer.close()


def _consumer(bootstrap: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "chaos-witness",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
