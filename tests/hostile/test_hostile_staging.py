"""A worker under a flood of malformed staging records: it stays up, its memory flat, each record ends (C1, C3, T6)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from devtools.kafka import Brokers
from pipeline.errors import ErrorClass
from tests.kafka_client import committed, read_all, record_count, wait_until
from tests.worker_harness import WorkerProcess

SECRET = "PLANTED-s3cret"
_SOUND = {
    "stage-version": b"1",
    "stage-definition": b"order.created",
    "stage-id": b"id",
    "stage-time": b"2026-01-02T03:04:05Z",
    "stage-source": b"//shop/web",
    "stage-tenant": b"acme",
}
_TEXT = (None, b"", b"\xff\xfe", b"a\r\nce_id: forged", b"x" * 3_000, b"\x00")
_NAMED = (*_TEXT, b"now", f"password={SECRET}".encode())
_WRONG: dict[str, tuple[bytes | None, ...]] = {
    "stage-version": _NAMED,
    "stage-definition": _NAMED,
    "stage-id": _TEXT,
    "stage-time": _NAMED,
    "stage-source": _TEXT,
    "stage-policy": (b"dlq=maybe", b"\xff", f"password={SECRET}".encode()),
}


def malformed(
    count: int,
) -> Iterator[tuple[bytes | None, bytes | None, list[tuple[str, str | bytes | None]]]]:
    """`count` records, each wrong in one or more ways, the same ones each time; key, value, headers."""
    dice = random.Random(6)
    for number in range(count):
        fields: dict[str, bytes | None] = dict(_SOUND)
        value: bytes | None = b"{}"
        if number % 7 == 0:
            value = b"not JSON " + dice.randbytes(20)
        else:
            for name in dice.sample(sorted(_WRONG), dice.randint(1, 2)):
                fields[name] = dice.choice(_WRONG[name])
                if name != "stage-policy" and dice.random() < 0.3:
                    del fields[name]
        if number % 1_000 == 0:
            fields |= {f"h{index}": b"v" for index in range(2_000)}
        headers: list[tuple[str, str | bytes | None]] = [*fields.items(), ("ce_id", b"forged")]
        yield (None if number % 3 else dice.randbytes(8)), value, headers


def flood(bootstrap: str, topic: str, count: int) -> None:
    """Produce `count` malformed records; at return all are acknowledged."""
    producer = Producer(
        {"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 20, "compression.type": "lz4"}
    )
    for number, (key, value, headers) in enumerate(malformed(count)):
        producer.produce(topic, value=value, key=key, headers=headers)
        if number % 5_000 == 4_999:
            producer.flush(60)
    assert producer.flush(60) == 0


def memory_mb(pid: int, what: str = "RssAnon") -> float:
    """What a process holds in memory, files it has mapped left out; `VmRSS` is with them."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition(f"{what}:")[2].split()[0]) / 1_000


@pytest.mark.kafka
@pytest.mark.parametrize("count", [6_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_a_flood_of_malformed_records(kafka: Brokers, namespace: str, count: int) -> None:
    """C1, C3, T6: each record is committed only with its end, under a true class; memory does not follow the flood.

    What is missing a definition ends in staging's own dead-letter topic, the rest in its target's. No planted secret
    is in a dead letter's message or in the log, and no header of a record has become another.
    """
    staging = f"{namespace}.staging"
    with WorkerProcess(
        kafka.bootstrap, namespace, catalog="tests.catalogs.shop", env={"STREAMING_UNKNOWN_DEFINITION": "dlq"}
    ) as worker:
        worker.wait_ready()
        flood(kafka.bootstrap, staging, count // 3)
        group = f"{namespace}-pipeline"

        def done(expected: int) -> bool:
            assert worker.exit_status is None, worker.log_tail()
            return sum(committed(kafka.bootstrap, group, staging).values()) >= expected

        wait_until(lambda: done(count // 3), 60 + count / 500, "the end of a third of the flood")
        before = memory_mb(worker.pid)
        flood(kafka.bootstrap, staging, count - count // 3)
        wait_until(lambda: done(count), 60 + count / 500, "the end of the flood")
        grown = memory_mb(worker.pid) - before
        assert grown < 30, f"{grown:.0f} MB more after the rest of the flood"
        assert memory_mb(worker.pid, "VmRSS") < 300
        topics = [f"{staging}.dlq", f"{namespace}.order.created.dlq"]
        assert sum(record_count(kafka.bootstrap, topic) for topic in topics) == count
        assert SECRET not in worker.log_text()
        assert worker.terminate() == 0
    if count > 100_000:
        return  # reading a million back by this client shows nothing that the plain run does not
    classes: Counter[str] = Counter()
    for topic in topics:
        for record in read_all(kafka.bootstrap, topic):
            classes[record.header["dlq-error-class"].decode()] += 1
            assert SECRET not in record.header["dlq-error-message"].decode()
            assert len([name for name, _ in record.headers if name == "ce_id"]) == 1
    assert classes == {ErrorClass.VALIDATION: count}
