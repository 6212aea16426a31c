"""How a worker starts, waits and ends: topics that are missing, brokers that are down, an agent that breaks."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from catalog import OwnTopics
from catalog.loading import load
from catalog.names import dlq_of
from devtools.kafka import Brokers, Cluster
from tests.kafka_client import committed, create_topic, produce, read_all, record_count, wait_until
from tests.process_harness import ROOT
from tests.web.asking import HTML, Site
from tests.worker.shop_records import CATALOG, staged, wait_committed
from tests.worker_harness import WorkerProcess

pytestmark = pytest.mark.kafka


def ids(bootstrap: str, topic: str) -> list[bytes]:
    """The ids of the events on a topic, delivered or dead, by partition and offset."""
    return [r.header.get("ce_id") or r.header["stage-id"] for r in read_all(bootstrap, topic)]


def topics_of(bootstrap: str, namespace: str) -> set[str]:
    """The topics of a namespace."""
    found = AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=30).topics
    return {name for name in found if name.startswith((f"{namespace}.", f"{namespace}-"))}


def test_topics_that_may_not_be_created(kafka: Brokers, namespace: str) -> None:
    """E: `TOPICS_AUTOCREATE=false`: the worker ends and lists all that is missing; with it there, it works, in the
    other dialect (T2) as well, and creates nothing."""
    bootstrap, own = kafka.bootstrap, OwnTopics(namespace)
    targets = load(CATALOG, namespace=namespace).topics
    needed = {*own.all, *targets, *map(dlq_of, targets)}
    there = f"{namespace}.order.created"
    create_topic(bootstrap, there, 2)
    env = {"STREAMING_TOPICS_AUTOCREATE": "false", "STREAMING_CLOUDEVENTS_DIALECT": "ce-"}
    with WorkerProcess(bootstrap, namespace, catalog=CATALOG, env=env) as worker:
        assert worker.wait(60) != 0
        listed = set(re.findall(r"^ *([^\s:]+): missing, create it", worker.log_text(), re.MULTILINE))
        assert listed == needed - topics_of(bootstrap, namespace) - topics_of(bootstrap, "all")

        admin = AdminClient({"bootstrap.servers": bootstrap})
        made = admin.create_topics(
            [NewTopic(name, num_partitions=2, replication_factor=1) for name in listed]
        )
        for future in made.values():
            future.result(30)
        worker.start().wait_ready()
        places = produce(
            bootstrap,
            own.staging,
            [
                staged("1", {"tenant": b"acme", "subject": b"s"}, more=[("traceparent", b"00-1")]),
                staged("2", without="time"),
            ],
        )
        wait_committed(worker, bootstrap, namespace, places)
        assert worker.terminate() == 0
    (record,) = read_all(bootstrap, there)
    assert dict(record.headers) == {
        "ce-datacontenttype": b"application/json",
        "ce-specversion": b"1.0",
        "ce-type": f"{namespace}.order.created".encode(),
        "ce-schemaversion": b"1.0.0",
        "ce-resourcetype": b"order",
        "ce-eventtype": b"created",
        "ce-source": b"//shop/web",
        "ce-id": b"1",
        "ce-time": b"2026-01-02T03:04:05Z",
        "ce-partitionkey": b"acme",
        "ce-tenantid": b"acme",
        "ce-subject": b"s",
        "traceparent": b"00-1",
    }
    assert ids(bootstrap, dlq_of(there)) == [b"2"]
    assert topics_of(bootstrap, namespace) == {name for name in needed if name.startswith(namespace)}


_SITE = """
import pipeline.delivery

deliver = pipeline.delivery.Delivery.deliver


def broken(self, batch, on_end):
    if any(dict(record.headers).get("stage-id") == b"break" for record in batch.records):
        raise RuntimeError("planted")
    return deliver(self, batch, on_end)


pipeline.delivery.Delivery.deliver = broken
"""


def test_an_agent_that_breaks_ends_the_worker(kafka: Brokers, namespace: str, tmp_path: Path) -> None:
    """T6: an error nobody expected ends the process with a failure; the event is not committed and not lost: the
    worker that is started next delivers it."""
    bootstrap, staging = kafka.bootstrap, f"{namespace}.staging"
    (tmp_path / "sitecustomize.py").write_text(_SITE)
    env = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    with WorkerProcess(bootstrap, namespace, catalog=CATALOG, env=env) as worker:
        worker.wait_ready()
        places = produce(bootstrap, staging, [staged("before", partition=0)])
        wait_committed(worker, bootstrap, namespace, places)
        places = produce(bootstrap, staging, [staged("break", partition=0), staged("behind", partition=0)])
        assert worker.wait(60) != 0
        assert "RuntimeError: planted" in worker.log_text()
    assert committed(bootstrap, f"{namespace}-pipeline", staging)[0] == places[0][1]
    with WorkerProcess(bootstrap, namespace, catalog=CATALOG) as worker:
        worker.wait_ready()
        wait_committed(worker, bootstrap, namespace, places)
        assert sorted(ids(bootstrap, f"{namespace}.order.created")) == [b"before", b"behind", b"break"]


@pytest.fixture
def elsewhere(own_kafka: Cluster) -> Cluster:
    """A cluster that is down, but comes back on the same port."""
    own_kafka.nodes[0].kill()
    return own_kafka


def test_brokers_that_are_down(kafka: Brokers, elsewhere: Cluster, namespace: str) -> None:
    """C3, T6: what is for a target cluster that is down is parked, nothing is dead-lettered for it, poison with a
    dead-letter topic goes its way; all is delivered when it appears. A staging broker that is down is waited for,
    with a word: the worker is alive (O1), and can be stopped."""
    bootstrap, far, staging = kafka.bootstrap, elsewhere.bootstrap, f"{namespace}.staging"
    create_topic(bootstrap, f"{namespace}.order.created.dlq", 1)
    with WorkerProcess(bootstrap, namespace, catalog=CATALOG, target_bootstrap=far) as worker:
        worker.wait_ready()
        places = produce(
            bootstrap,
            staging,
            [
                staged("poison", without="time", partition=1),
                *(staged(f"{number}", partition=0) for number in range(5)),
            ],
        )
        worker.wait_log(f"kafka.unreachable brokers={far}")
        wait_until(lambda: ids(bootstrap, f"{namespace}.order.created.dlq") == [b"poison"], 20, "the poison")
        wait_committed(worker, bootstrap, namespace, places)
        assert record_count(bootstrap, f"{namespace}.parked") == 5

        node = elsewhere.nodes[0]
        node.start()
        wanted = [b"%d" % number for number in range(5)]
        wait_until(lambda: sorted(ids(far, f"{namespace}.order.created")) == wanted, 30, "the parked events")
        assert ids(bootstrap, f"{namespace}.order.created.dlq") == [b"poison"]
        assert read_all(bootstrap, f"{namespace}.order.created") == []
        assert worker.terminate() == 0

    node.kill()
    with WorkerProcess(far, namespace, catalog=CATALOG) as worker:
        worker.wait_log(f"kafka.unreachable brokers={far}")
        site = Site(worker)
        assert site.get("/health/live").status == 200
        ready, page = site.get("/health/ready"), site.get("/", HTML)
        assert (ready.status, "may wait for a broker" in ready.data["reasons"][0]) == (503, True)
        assert (page.status, "the worker is starting" in page.text) == (503, True)
        assert site.get("/metrics").status == 503
        worker.signal(signal.SIGTERM)
        worker.wait(30)
        worker.start().wait_log(f"kafka.unreachable brokers={far}")
        node.start()
        worker.wait_ready()
        places = produce(far, staging, [staged("late")])
        wait_committed(worker, far, namespace, places)
        assert b"late" in ids(far, f"{namespace}.order.created")
