"""A load that can be judged: numbered events of many tenants in, everything on the targets back.

Owns: making the load, reading it back, the verdict. Must not know: what happens to workers meanwhile.
"""

from __future__ import annotations

import json
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from confluent_kafka import Consumer, TopicPartition

from tests.kafka_client import OutRecord, committed, produce, record_count, wait_until

__all__ = ["CATALOG", "DEFINITIONS", "Load", "Verdict"]

CATALOG = "tests.catalogs.fifty"
DEFINITIONS = 50
TENANTS = 1_000
_CHUNK = 2_000


class Verdict(NamedTuple):
    """What became of a load: how many events are missing, how many records came again, and the first keys out
    of order, judged by first deliveries (T5)."""

    missing: int
    doubles: int
    out_of_order: list[str]


class Load:
    """`count` events on a namespace's staging topic, written by a thread while the test goes on."""

    def __init__(self, bootstrap: str, namespace: str, count: int) -> None:
        self.bootstrap = bootstrap
        self.namespace = namespace
        self.count = count
        self._thread = threading.Thread(target=self._write)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def delivered(self) -> int:
        """How many staging records are committed by the worker's group."""
        return sum(committed(self.bootstrap, f"{self.namespace}-pipeline", self._staging).values())

    def wait_for_a_commit(self, timeout: float) -> None:
        """Wait until more is committed than now."""
        before = self.delivered()
        wait_until(lambda: self.delivered() > before, timeout, "a commit")

    def wait_until_delivered(self, timeout: float) -> None:
        """Wait until every event is written, and committed by the workers."""
        self._thread.join(timeout)
        assert record_count(self.bootstrap, self._staging) == self.count
        wait_until(lambda: self.delivered() == self.count, timeout, "the last commit")

    def verdict(self) -> Verdict:
        """Read all targets and judge."""
        came: Counter[tuple[str, int]] = Counter()
        last: defaultdict[tuple[str, str], int] = defaultdict(lambda: -1)
        out_of_order: list[str] = []
        for topic, value in self._targets():
            event = json.loads(value)
            tenant, number = event["t"], event["n"]
            came[tenant, number] += 1
            if came[tenant, number] == 1:
                if number <= last[topic, tenant]:
                    out_of_order.append(f"{topic} {tenant}: {number} after {last[topic, tenant]}")
                last[topic, tenant] = number
        doubles = sum(times - 1 for times in came.values())
        return Verdict(self.count - len(came), doubles, out_of_order[:10])

    @property
    def _staging(self) -> str:
        return f"{self.namespace}.staging"

    def _write(self) -> None:
        for first in range(0, self.count, _CHUNK):
            produce(self.bootstrap, self._staging, self._records(first, min(self.count, first + _CHUNK)))

    def _records(self, first: int, stop: int) -> Iterator[OutRecord]:
        for index in range(first, stop):
            tenant, number = f"tenant-{index % TENANTS}", index // TENANTS
            headers = [
                ("stage-version", b"1"),
                ("stage-definition", b"thing.e%d" % ((index * 7 + number) % DEFINITIONS)),
                ("stage-id", f"{tenant}-{number}".encode()),
                ("stage-time", b"2026-01-02T03:04:05Z"),
                ("stage-source", b"/fire"),
                ("stage-tenant", tenant.encode()),
            ]
            value = json.dumps({"t": tenant, "n": number}).encode()
            yield OutRecord(tenant.encode(), value, headers)

    def _targets(self) -> Iterator[tuple[str, bytes]]:
        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": "judge", "enable.auto.commit": False}
        )
        prefix = f"{self.namespace}.thing."
        ends: dict[tuple[str, int], int] = {}
        try:
            for topic, metadata in consumer.list_topics(timeout=30).topics.items():
                for partition in metadata.partitions if topic.startswith(prefix) else ():
                    high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)[1]
                    if high and not topic.endswith(".dlq"):
                        ends[topic, partition] = high
            consumer.assign([TopicPartition(*at, 0) for at in ends])
            left = sum(ends.values())
            while left:
                messages = consumer.consume(5_000, timeout=30)
                assert messages, f"{left} records on the targets cannot be read"
                for message in messages:
                    assert message.error() is None, message.error()
                    left -= 1
                    yield message.topic() or "", message.value() or b""
        finally:
            consumer.close()
