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

from pipeline.kafka.connection import staging_cluster
from pipeline.kafka.producer import Producer, ProducerOptions
from pipeline.kafka.reader import Place, Reader
from tests.kafka_client import read_all, wait_until
from tests.secure.acl_steps import Steps, delivered, service_settings, stage
from tests.secure.secure_kafka import Allowed, SecureKafka
from tests.service import own_transactions

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).resolve().parents[2]
RULES = ("service", "worker", "targets")
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


EACH: dict[tuple[str, str, str, str], str] = {
    ("service", "TOPIC", "<ns>.staging", "WRITE"): "stage",
    ("worker", "GROUP", "<ns>-pipeline", "READ"): "start",
    ("worker", "TOPIC", "<ns>.staging", "READ"): "deliver",
    ("worker", "TOPIC", "<ns>.staging", "WRITE"): "redrive",
    ("worker", "TOPIC", "<ns>.staging.dlq", "READ"): "show",
    ("worker", "TOPIC", "<ns>.staging.dlq", "WRITE"): "dead_letter",
    ("worker", "TOPIC", "<target>.dlq", "READ"): "show",
    ("worker", "TOPIC", "<target>.dlq", "WRITE"): "dead_letter",
    ("worker", "TOPIC", "<ns>.parked", "READ"): "drain",
    ("worker", "TOPIC", "<ns>.parked", "WRITE"): "park",
    ("worker", "TOPIC", "<ns>.parked", "DELETE"): "drain",
    ("worker", "TOPIC", "<ns>.parked.cursors", "READ"): "restart",
    ("worker", "TOPIC", "<ns>.parked.cursors", "WRITE"): "drain",
    ("worker", "TOPIC", "<ns>.dlq.index", "READ"): "index",
    ("worker", "TOPIC", "<ns>.dlq.index", "WRITE"): "index",
    ("worker", "TOPIC", "<ns>.dlq.state", "READ"): "discard",
    ("worker", "TOPIC", "<ns>.dlq.state", "WRITE"): "redrive",
    ("worker", "TOPIC", "<ns>.jobs", "READ"): "redrive",
    ("worker", "TOPIC", "<ns>.jobs", "WRITE"): "redrive",
    ("worker", "TOPIC", "<ns>.audit", "READ"): "audit_page",
    ("worker", "TOPIC", "<ns>.audit", "WRITE"): "skip",
    ("targets", "TOPIC", "<target>", "WRITE"): "start",
}
"""What fails first without a rule."""


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
    for who in RULES:
        secure.allow(who, documented(who, namespace, [f"{namespace}.order.placed"]))
    yield shared
    for who in RULES:
        secure.forbid(who, documented(who, namespace, [f"{namespace}.order.placed"]))


def test_the_documented_rules_are_enough_and_none_is_spare(
    secure: SecureKafka, namespace: str, env: dict[str, str]
) -> None:
    """Service and worker do all they have to; nothing else is asked for, and the broker has asked for every rule."""
    target = f"{namespace}.order.placed"
    with Steps(secure, namespace, env, patience_s=30) as steps:
        assert steps.first_failure() == ""
        assert secure.decided("Denied", namespace) == set()
        write: Allowed = {("TOPIC", target, "LITERAL"): ("WRITE",)}
        secure.forbid("targets", write)
        asyncio.run(stage(steps.settings, range(100, 110)))
        wait_until(lambda: len(read_all(secure.bootstrap, steps.topics.parked)) == 10, 30, "10 parked")
        secure.allow("targets", write)
        wait_until(lambda: len(delivered(secure, namespace)) == 31, 30, f"31\n{steps.worker.log_tail()}")
        assert steps.worker.terminate() == 0
    assert delivered(secure, namespace) == [b"order-%d" % number for number in [*range(21), *range(100, 110)]]
    assert {user for user, *_ in secure.decided("Denied", namespace)} == {"targets"}
    used = {
        one for one in secure.decided("Allowed", namespace) if one[1] != "DESCRIBE"
    }  # which each right implies
    assert used == {
        (who, operation, resource.capitalize(), name)
        for who in RULES
        for (resource, name, _), operations in documented(who, namespace, [target]).items()
        for operation in operations
    }


@pytest.mark.long
@pytest.mark.parametrize(
    ("who", "resource", "name", "operation"), sorted(EACH), ids=[" ".join(one) for one in sorted(EACH)]
)
def test_without_a_rule(
    secure: SecureKafka,
    namespace: str,
    env: dict[str, str],
    who: str,
    resource: str,
    name: str,
    operation: str,
) -> None:
    """With every documented rule but one, what that one is for is the first thing that fails."""
    target = f"{namespace}.order.placed"
    full = name.replace("<ns>", namespace).replace("<target>", target)
    secure.forbid(who, {(resource, full, "LITERAL"): (operation,)})
    with Steps(secure, namespace, env, patience_s=12) as steps:
        assert steps.first_failure() == EACH[who, resource, name, operation]
    assert {(user, name) for user, _, _, name in secure.decided("Denied", namespace)} <= {(who, full)}


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
