"""Staging shop events for a worker whose targets get sick, and judging what arrived.

Owns: what is staged, the order and completeness of what is on targets. Must not know: what makes a target sick.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from urllib.error import HTTPError
from urllib.request import urlopen

from tests.kafka_client import OutRecord, Record, produce, read_all, record_count, wait_until
from tests.worker.shop_records import CATALOG, staged, wait_committed
from tests.worker_harness import WorkerProcess

__all__ = ["ParkedShop", "readiness"]

FAST = {
    "STREAMING_CB_TIMEOUT_S": "1",
    "STREAMING_TARGET_SOFT_TIMEOUT_S": "0.5",
    "STREAMING_CB_MIN_REQUESTS": "5",
    "STREAMING_TOPIC_PARTITIONS": "3",
    "STAGEPOST_FAUST_BROKER_SESSION_TIMEOUT": "6",
}
"""Breakers that open and probe soon, and a group that soon misses a worker that was killed."""


class ParkedShop:
    """A namespace: what was staged in it, by tenant and target, and what is on its topics.

    `bootstrap`: staging's cluster; `targets`: that of the targets.
    """

    def __init__(self, bootstrap: str, targets: str, namespace: str) -> None:
        self.bootstrap = bootstrap
        self.targets = targets
        self.namespace = namespace
        self.wanted: defaultdict[tuple[str, bytes], list[str]] = defaultdict(list)
        self.places: list[tuple[int, int]] = []
        self._number = 0

    def topic(self, name: str) -> str:
        """A topic's full name."""
        return f"{self.namespace}.{name}"

    @contextmanager
    def worker(self, env: Mapping[str, str] | None = None, catalog: str = CATALOG) -> Iterator[WorkerProcess]:
        """A running worker with fast breakers."""
        with WorkerProcess(
            self.bootstrap,
            self.namespace,
            catalog=catalog,
            env=FAST | dict(env or {}),
            target_bootstrap=self.targets,
        ) as worker:
            yield worker

    def stage(self, definition: str, count: int, tenants: int = 5, value: bytes = b"{}") -> None:
        """Stage events of a definition, in order, for so many tenants in turn."""
        topic = definition if "@" not in definition else definition.replace("@", ".v")
        records = []
        for _ in range(count):
            self._number += 1
            tenant = b"tenant-%d" % (self._number % tenants)
            event_id = f"{definition}-{self._number:07}"
            fields = {"definition": definition.encode(), "tenant": tenant}
            records.append(staged(event_id, fields, value=value))
            self.wanted[topic, tenant].append(event_id)
        self.produce(records)

    def produce(self, records: Sequence[OutRecord]) -> None:
        """Write staging records."""
        self.places += produce(self.bootstrap, self.topic("staging"), records)

    def wait_committed(self, worker: WorkerProcess, timeout: float = 30.0) -> None:
        """Wait until every event staged so far has an end, awaited (T6)."""
        wait_committed(worker, self.bootstrap, self.namespace, self.places, timeout)

    def wait_delivered(self, timeout: float = 30.0, *, repeats: bool = False) -> None:
        """Wait until each target has every event staged for it; first deliveries must be in order (T5).

        `repeats`: whether events may come twice.
        """
        for topic in sorted({topic for topic, _ in self.wanted}):
            count = sum(len(ids) for (name, _), ids in self.wanted.items() if name == topic)

            def arrived(topic: str = topic, count: int = count) -> bool:
                return len({id_of(record) for record in self.on(topic)}) >= count

            wait_until(arrived, timeout, f"{count} events on {topic}")
            found: defaultdict[bytes, list[str]] = defaultdict(list)
            for record in self.on(topic):
                found[record.key or b""].append(id_of(record))
            for key, ids in found.items():
                first = list(dict.fromkeys(ids))
                assert first == self.wanted[topic, key], f"{topic} has {key!r} out of order"
                assert repeats or first == ids, f"{topic} has events of {key!r} twice"

    def on(self, topic: str) -> list[Record]:
        """What is on a target now."""
        return read_all(self.targets, self.topic(topic))

    def parked(self) -> list[Record]:
        """What is on the parked topic now."""
        return read_all(self.bootstrap, self.topic("parked"))

    def wait_drained(self, timeout: float = 30.0) -> None:
        """Wait until the parked topic is empty again."""
        wait_until(
            lambda: record_count(self.bootstrap, self.topic("parked")) == 0, timeout, "an empty parked topic"
        )

    def assert_no_dead_letters(self) -> None:
        """C3: no target that was down has a dead letter."""
        for topic in {topic for topic, _ in self.wanted} | {"staging"}:
            assert record_count(self.bootstrap, self.topic(f"{topic}.dlq")) == 0, topic


def id_of(record: Record) -> str:
    """The id of an event on a target."""
    return record.header["ce_id"].decode()


def readiness(worker: WorkerProcess) -> str:
    """What the worker's page says about being ready."""
    try:
        with urlopen(f"http://127.0.0.1:{worker.web_port}/health/ready", timeout=5) as page:
            return str(page.read())
    except HTTPError as refused:
        with refused:
            return str(refused.read())
