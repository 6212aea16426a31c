"""The broker tool against real brokers: data, failures on purpose, and that nothing is left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from devtools.kafka import BrokerFailed, Cluster, NoBroker, cluster, probe
from devtools.kafka.choice import EngineName, choose_engine
from devtools.kafka.config import Address, free_addresses
from devtools.kafka.jvm import JvmNode
from devtools.kafka.scratch import Scratch
from tests.devtools.broker_processes import DEADLINE_S, ROOT, alive, java_pids, needs_java, wait_until

pytestmark = pytest.mark.kafka


@pytest.fixture(autouse=True, scope="module")
def _java() -> None:
    """Skip where this machine can run no broker, or fail there under CI."""
    needs_java()


def create_topic(bootstrap: str, topic: str, replicas: int = 1) -> None:
    """Create a topic with one partition and wait for the answer."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    admin.create_topics([NewTopic(topic, 1, replicas)])[topic].result(DEADLINE_S)


def produce(bootstrap: str, topic: str, *values: bytes) -> None:
    """Produce the values with acks=all and wait until every one is acknowledged."""
    failures: list[KafkaError] = []

    def on_delivery(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failures.append(error)

    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "log_level": 0})
    for value in values:
        producer.produce(topic, value, on_delivery=on_delivery)
    assert producer.flush(DEADLINE_S) == 0
    assert failures == []


def consume(bootstrap: str, topic: str, count: int) -> list[bytes]:
    """Consume `count` values of a topic through a consumer group, from its beginning."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"{topic}-{time.monotonic_ns()}",
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    consumer.subscribe([topic])
    values: list[bytes] = []
    deadline = time.monotonic() + DEADLINE_S
    try:
        while len(values) < count and time.monotonic() < deadline:
            message = consumer.poll(0.5)
            if message is not None and message.error() is None:
                values.append(message.value() or b"")
    finally:
        consumer.close()
    return values


@pytest.fixture
def jvm(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster on the JVM with its own run folder, so that its processes can be told from others."""
    with Cluster(engine="jvm", run_root=tmp_path) as one:
        yield one


@pytest.mark.parametrize("engine", ["jvm", "docker"])
def test_what_is_produced_is_consumed(engine: EngineName, namespace: str) -> None:
    """A started cluster is a working Kafka on either engine: topics, acks=all, consumer groups."""
    try:
        choose_engine(engine)
    except NoBroker as absent:
        pytest.skip(str(absent))
    with Cluster(engine=engine) as kafka:
        create_topic(kafka.bootstrap, namespace)
        produce(kafka.bootstrap, namespace, b"1", b"2", b"3")
        assert consume(kafka.bootstrap, namespace, 3) == [b"1", b"2", b"3"]
        assert kafka.engine == engine


def test_topics_are_not_created_by_accident(own_kafka: Cluster, namespace: str) -> None:
    """Producing to a topic that is not there creates none, as on a broker in production."""
    producer = Producer(
        {"bootstrap.servers": own_kafka.bootstrap, "topic.metadata.propagation.max.ms": 3000, "log_level": 0}
    )
    refused: list[KafkaError | None] = []
    producer.produce(namespace, b"lost", on_delivery=lambda error, _message: refused.append(error))
    assert producer.flush(DEADLINE_S) == 0
    assert {error.name() for error in refused if error is not None} <= {
        "_UNKNOWN_TOPIC",
        "UNKNOWN_TOPIC_OR_PART",
    }
    assert len(refused) == 1
    admin = AdminClient({"bootstrap.servers": own_kafka.bootstrap, "log_level": 0})
    assert namespace not in admin.list_topics(timeout=DEADLINE_S).topics


def test_a_killed_broker_comes_back_with_its_data(jvm: Cluster, namespace: str) -> None:
    """After SIGKILL and a restart, port and acknowledged records are the same; the process is another."""
    node = jvm.nodes[0]
    assert isinstance(node, JvmNode)
    before, first = jvm.bootstrap, node.pid
    create_topic(before, namespace)
    produce(before, namespace, b"kept")
    node.kill()
    assert first is not None
    assert not alive(first)
    assert not node.running
    node.restart()
    assert jvm.bootstrap == before
    assert node.pid != first
    assert consume(before, namespace, 1) == [b"kept"]


def test_a_paused_broker_answers_only_after_it_is_resumed(own_kafka: Cluster, namespace: str) -> None:
    """While a broker is paused a record stays unacknowledged; once resumed it arrives, once."""
    node = own_kafka.nodes[0]
    create_topic(own_kafka.bootstrap, namespace)
    producer = Producer(
        {"bootstrap.servers": own_kafka.bootstrap, "enable.idempotence": True, "log_level": 0}
    )
    producer.produce(namespace, b"warm")
    assert producer.flush(DEADLINE_S) == 0
    node.pause()
    producer.produce(namespace, b"held")
    assert producer.flush(1.0) == 1
    assert node.running
    assert probe.known_brokers(node.address.port, 0.5) == set()
    node.resume()
    assert producer.flush(DEADLINE_S) == 0
    assert consume(own_kafka.bootstrap, namespace, 2) == [b"warm", b"held"]


def test_a_paused_broker_can_be_killed_and_stopped(jvm: Cluster) -> None:
    """A pause is no trap: kill and stop end a paused process too, and leave none behind."""
    node = jvm.nodes[0]
    node.pause()
    node.kill()
    assert java_pids(str(jvm_folder(jvm))) == []
    node.restart()
    node.pause()
    node.stop()
    assert java_pids(str(jvm_folder(jvm))) == []


def jvm_folder(kafka: Cluster) -> Path:
    """Return the folder of a JVM cluster's first node."""
    node = kafka.nodes[0]
    assert isinstance(node, JvmNode)
    return node.folder


def test_three_brokers_outlive_the_death_of_one(tmp_path: Path, namespace: str) -> None:
    """Of three, one may be killed: acks=all goes on with two in sync, and the third comes back."""
    with Cluster(3, engine="jvm", run_root=tmp_path) as kafka:
        assert len(kafka.bootstrap.split(",")) == 3
        create_topic(kafka.bootstrap, namespace, replicas=3)
        produce(kafka.bootstrap, namespace, b"with three")
        kafka.nodes[0].kill()
        produce(kafka.bootstrap, namespace, b"with two")
        kafka.nodes[0].start()
        kafka.wait_ready()
        known = [probe.known_brokers(node.address.port) for node in kafka.nodes]
        assert known == [{1, 2, 3}] * 3
        assert consume(kafka.bootstrap, namespace, 2) == [b"with three", b"with two"]
    assert java_pids(str(tmp_path)) == []


def test_a_taken_port_is_answered_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another program was quicker to take the chosen port, the start goes on with other ports."""
    with socket.create_server(("127.0.0.1", 0)) as thief:
        stolen = int(thief.getsockname()[1])
        controller = free_addresses(1)[0].controller
        offers = iter([(Address(1, stolen, controller),), free_addresses(1)])
        monkeypatch.setattr(cluster, "free_addresses", lambda *_: next(offers))
        with Cluster(engine="jvm", run_root=tmp_path) as kafka:
            assert kafka.bootstrap != f"127.0.0.1:{stolen}"
            assert probe.known_brokers(kafka.nodes[0].address.port) == {1}


def test_a_failed_start_shows_the_log_and_leaves_nothing(tmp_path: Path) -> None:
    """A broker that cannot start says why, from its own log; its process and its folder are gone."""
    broken = Cluster(engine="jvm", run_root=tmp_path, extra_config={"metric.reporters": "no.such.Reporter"})
    with pytest.raises(BrokerFailed, match=r"no\.such\.Reporter"):
        broken.start()
    assert java_pids(str(tmp_path)) == []
    assert list(tmp_path.glob("kafka-*")) == []


@pytest.mark.parametrize("victim", ["starter", "guard"])
def test_no_broker_outlives_a_killed_parent(victim: str, tmp_path: Path) -> None:
    """SIGKILL of the starter, or of the guard between, ends the broker; the next start removes the folder."""
    script = (
        "import sys, pathlib; from devtools.kafka import Cluster\n"
        "kafka = Cluster(engine='jvm', run_root=pathlib.Path(sys.argv[1])).start()\n"
        "print(kafka.nodes[0].pid, kafka.nodes[0]._guard.pid, flush=True); sys.stdin.read()"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with starter:
        assert starter.stdout is not None
        java, guard = (int(pid) for pid in starter.stdout.readline().split())
        assert java_pids(str(tmp_path)) == [java]
        os.kill(starter.pid if victim == "starter" else guard, signal.SIGKILL)
        wait_until(lambda: java_pids(str(tmp_path)) == [], "the end of the broker")
        starter.kill()
    left = list(tmp_path.glob("kafka-*"))
    assert len(left) == 1
    wait_until(lambda: not alive(guard), "the end of the guard")
    Scratch(tmp_path).remove()
    assert list(tmp_path.glob("kafka-*")) == []
