"""The rules of docs/security.md: the least that a service and a worker need, with the broker's authorizer on."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from aiokafka.errors import TopicAuthorizationFailedError

from catalog import OwnTopics
from pipeline import Settings, Stager
from pipeline.kafka.connection import staging_cluster
from pipeline.kafka.producer import Producer, ProducerOptions
from pipeline.kafka.reader import Place, Reader
from tests.kafka_client import OutRecord, produce, read_all, wait_until
from tests.secure.secure_kafka import Allowed, SecureKafka
from tests.service import own_transactions
from tests.worker_harness import WorkerProcess

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).resolve().parents[2]
_ROW = re.compile(r"\| (\w+) \| (TOPIC|GROUP) \| `([^`]+)` \| (LITERAL|PREFIXED) \| ([A-Z, ]+) \|")


def documented(who: str, namespace: str, targets: Iterable[str]) -> Allowed:
    """What docs/security.md says that somebody needs."""
    rules: dict[tuple[str, str, str], tuple[str, ...]] = {}
    for name, resource, topic, pattern, operations in _ROW.findall((ROOT / "docs/security.md").read_text()):
        if name == who:
            full = topic.replace("<ns>", namespace)
            for target in targets if "<target>" in full else [""]:
                rules[resource, full.replace("<target>", target), pattern] = tuple(operations.split(", "))
    assert rules
    return rules


@pytest.fixture
def env(secure: SecureKafka, namespace: str) -> Iterator[dict[str, str]]:
    """The settings that everybody shares; all topics are made by an administrator, the documented rules in force."""
    shared = {
        "STREAMING_CATALOG": own_transactions.NAME,
        "STREAMING_CLOUDEVENTS_SOURCE": "//tests/orders",
        "STREAMING_NAMESPACE": namespace,
        "STREAMING_TOPICS_AUTOCREATE": "false",
        "STREAMING_TOPIC_PARTITIONS": "2",
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("STREAMING_")}
    command = [sys.executable, "-m", "faust", "-A", "pipeline", "topics", "create"]
    administrator = inherited | shared | {"STREAMING_BROKERS": secure.bootstrap}
    subprocess.run(command, cwd=ROOT, env=administrator, capture_output=True, check=True)
    for who in ("service", "worker", "targets"):
        secure.allow(who, documented(who, namespace, [f"{namespace}.order.placed"]))
    yield shared
    for who in ("service", "worker", "targets"):
        secure.forbid(who, documented(who, namespace, [f"{namespace}.order.placed"]))


def service_settings(secure: SecureKafka, env: dict[str, str]) -> Settings:
    """The service's settings."""
    return Settings.from_env(
        env | secure.tls() | secure.sasl("service", "PLAIN") | {"STREAMING_BROKERS": secure.at("SASL")}
    )


async def stage(settings: Settings, numbers: Iterable[int]) -> None:
    """As the service does."""
    async with Stager(settings) as stager:
        for number in numbers:
            await stager.stage("order.placed", {"order": number}, tenant="acme", id=f"order-{number}")


def delivered(secure: SecureKafka, namespace: str) -> list[bytes]:
    """The ids on the target, in the order of their first deliveries."""
    records = read_all(secure.bootstrap, f"{namespace}.order.placed")
    return [*dict.fromkeys(record.header["ce_id"] for record in records)]


def test_the_documented_rules_are_enough(secure: SecureKafka, namespace: str, env: dict[str, str]) -> None:
    """Service and worker do all they have to, over TLS, each under its own name, the targets' cluster under another:
    deliver, dead-letter, audit, park while a right is missing and drain once it is there; nothing else is asked for."""
    topics = OwnTopics(namespace)
    target = f"{namespace}.order.placed"
    worker_env = env | secure.tls() | secure.sasl("worker", "SCRAM-SHA-512")
    worker_env |= {
        "STREAMING_BROKERS": secure.at("SASL"),
        "STREAMING_TARGET_BROKERS": secure.at("MUTUAL"),
        "STREAMING_TARGET_SASL_MECHANISM": "none",
        "STREAMING_CB_TIMEOUT_S": "0.5",
        **secure.own(secure.authority.sign("targets"), "STREAMING_TARGET_"),
    }
    settings = service_settings(secure, env)
    with WorkerProcess(secure.bootstrap, namespace, catalog=own_transactions.NAME, env=worker_env) as worker:
        asyncio.run(stage(settings, range(10)))
        poison: dict[str, bytes] = {
            "stage-version": b"1",
            "stage-definition": b"order.placed",
            "stage-id": b"bad",
        }
        skipped = poison | {"stage-id": b"skipped", "stage-policy": b"dlq=never"}
        records = [OutRecord(b"k", b"{", list(headers.items())) for headers in (poison, skipped)]
        produce(secure.bootstrap, topics.staging, records)
        wait_until(lambda: len(delivered(secure, namespace)) == 10, 60, f"10 events\n{worker.log_tail()}")
        dead = f"{target}.dlq", topics.staging_dlq
        wait_until(lambda: any(read_all(secure.bootstrap, topic) for topic in dead), 20, "a dead letter")
        wait_until(lambda: bool(read_all(secure.bootstrap, topics.audit)), 20, "an audit record")
        assert not denials(secure, namespace)
        write: Allowed = {("TOPIC", target, "LITERAL"): ("WRITE",)}
        secure.forbid("targets", write)
        asyncio.run(stage(settings, range(10, 20)))
        wait_until(
            lambda: len(read_all(secure.bootstrap, topics.parked)) == 10, 30, f"parked\n{worker.log_tail()}"
        )
        secure.allow("targets", write)
        wait_until(lambda: len(delivered(secure, namespace)) == 20, 30, f"drained\n{worker.log_tail()}")
        wait_until(lambda: not read_all(secure.bootstrap, topics.parked), 30, f"deleted\n{worker.log_tail()}")
        assert worker.terminate() == 0
    assert delivered(secure, namespace) == [b"order-%d" % number for number in range(20)]
    assert {line for line in denials(secure, namespace) if "User:targets" not in line} == set()


def denials(secure: SecureKafka, namespace: str) -> list[str]:
    """What was refused to anybody in the namespace."""
    return [line for line in secure.denied() if namespace in line]


async def test_a_service_can_write_staging_only(
    secure: SecureKafka, namespace: str, env: dict[str, str]
) -> None:
    """With the service's rights nothing can be read, and nothing be written but the staging topic."""
    settings = service_settings(secure, env)
    await stage(settings, [1])
    connection = staging_cluster(settings)
    async with Reader(connection) as reader:
        reader.read_from({Place(f"{namespace}.staging", partition): 0 for partition in range(2)})
        with pytest.raises(TopicAuthorizationFailedError):
            await reader.fetch(10, 5)
    producer = Producer(connection, ProducerOptions())
    await producer.start()
    for topic in ("order.placed", "order.placed.dlq", "parked", "audit", "dlq.state"):
        with pytest.raises(TopicAuthorizationFailedError):
            await producer.partitions(f"{namespace}.{topic}")
    await producer.close(1)
