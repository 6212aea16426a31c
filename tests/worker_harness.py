"""A real worker in a process of its own, and an independent Kafka client (librdkafka) to judge what it does.

Owns: starting and ending the worker, reading and writing topics, waiting for what a process does.
Must not know: what any test is about.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

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
    "WorkerProcess",
    "committed",
    "create_topic",
    "partition_count",
    "produce",
    "read_all",
    "record_count",
    "wait_until",
]

ROOT = Path(__file__).resolve().parent.parent
_TAIL_LINES = 60
_KAFKA_TIMEOUT_S = 30.0
_ERRORS_ONLY = 3
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
    """A record as librdkafka read it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]

    @property
    def header(self) -> dict[str, bytes]:
        """The headers by name; of a repeated one the last."""
        return dict(self.headers)


class WorkerProcess:
    """`faust -A pipeline -L uvloop worker -l info` in a process group, port and data folder of its own.

    `catalog`, `env`: settings, the latter by full variable name, over the ones made here. `target_bootstrap`:
    another cluster for the targets. `faust`: how that command is called; `cwd`: where. A context manager that
    starts on entry and leaves nothing behind.
    """

    def __init__(
        self,
        bootstrap: str,
        namespace: str,
        *,
        catalog: str = "catalog.examples.flights",
        env: Mapping[str, str] | None = None,
        target_bootstrap: str | None = None,
        faust: Sequence[str] = (sys.executable, "-m", "faust"),
        cwd: Path = ROOT,
    ) -> None:
        self._faust = faust
        self._cwd = cwd
        self.folder = Path(tempfile.mkdtemp(prefix="stagepost-worker-"))
        self.log = self.folder / "worker.log"
        self.web_port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._seen = 0
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("STREAMING_")}
        self._env = inherited | {
            "STREAMING_BROKERS": bootstrap,
            "STREAMING_CATALOG": catalog,
            "STREAMING_CLOUDEVENTS_SOURCE": "/tests/worker",
            "STREAMING_NAMESPACE": namespace,
            "STREAMING_DATA_DIR": str(self.folder / "data"),
            "STREAMING_WEB_PORT": str(self.web_port),
        }
        if target_bootstrap is not None:
            self._env["STREAMING_TARGET_BROKERS"] = target_bootstrap
        self._env.update(env or {})

    @property
    def pid(self) -> int:
        """Process id, also the id of its process group."""
        assert self._process is not None, "the worker was not started"
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        assert self._process is not None, "the worker was not started"
        return self._process.poll()

    def start(self) -> Self:
        """Start the process; does not wait. May be called again after its end: same settings, same data."""
        assert self._process is None or self.exit_status is not None, "the worker runs already"
        self._seen = len(self._log_text())
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._faust, "-A", "pipeline", "-L", "uvloop", "worker", "-l", "info"],
                cwd=self._cwd,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def wait_ready(self, timeout: float = 60.0) -> Self:
        """Wait until it has joined its group and reads; fails with the end of its log."""
        return self.wait_log("Worker ready", timeout)

    def wait_log(self, text: str, timeout: float = 30.0) -> Self:
        """Wait until a text stands in the log of this start; fails where the process ends without it."""

        def there() -> bool:
            ended = self.exit_status is not None  # asked first: what it wrote before its end counts
            if text in self.log_text():
                return True
            assert not ended, f"the worker ended with {self.exit_status}:\n{self.log_tail()}"
            return False

        try:
            wait_until(there, timeout, f"{text!r} in the worker's log")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log_tail()}") from None
        return self

    def terminate(self, timeout: float = 60.0) -> int:
        """SIGTERM, as a deploy does; waits for the end and returns the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> None:
        """SIGKILL to the whole group, as a crash; waits for the end."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the worker."""
        os.kill(self.pid, number)

    def wait(self, timeout: float = 60.0) -> int:
        """Wait for the end of the process and return the exit status."""
        assert self._process is not None, "the worker was not started"
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the worker has not ended in {timeout:g} s\n{self.log_tail()}") from None

    def log_text(self) -> str:
        """What it has logged since its last start."""
        return self._log_text()[self._seen :]

    def log_tail(self, lines: int = _TAIL_LINES) -> str:
        """The last lines of the log, over all starts."""
        return "\n".join(self._log_text().splitlines()[-lines:])

    def _log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill what is left; on a failure, show the log first."""
        if error is not None:
            print(f"--- the worker's log\n{self.log_tail()}")
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


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
            "log_level": _ERRORS_ONLY,
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
            else:
                raise KafkaException(error)
            if partition in ends and reached >= ends[partition]:
                del ends[partition]
        return sorted(found, key=lambda record: (record.partition, record.offset))
    finally:
        consumer.close()


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
    bootstrap: str, topic: str, partitions: int = 1, config: Mapping[str, str] | None = None
) -> None:
    """Create a topic and wait until the broker knows it."""
    admin = _admin(bootstrap)
    new = NewTopic(topic, num_partitions=partitions, replication_factor=1, config=dict(config or {}))
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
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": _ERRORS_ONLY})


def _consumer(bootstrap: str, group: str) -> Consumer:
    # Never joins the group: partitions are assigned by hand and nothing is committed.
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "log_level": _ERRORS_ONLY,
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
    return Record(topic, partition, offset, message.key(), message.value(), kept)


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


def _free_port() -> int:
    # Below the range of outgoing connections, so that none of them takes it before the worker does.
    while True:
        port = 10_000 + int.from_bytes(os.urandom(2)) % 5_000
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
