"""One target is sick on a cluster that is well: its events wait in order, the others go on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from devtools.kafka import Cluster
from tests.broker_fixtures import skipping
from tests.kafka_client import create_topic, partition_count, read_all, record_count, wait_until
from tests.parking.guarded import GUARDED, SICK, WELL, deny
from tests.parking.parked_shop import ParkedShop, readiness
from tests.web.asking import TOKENS, Site


@pytest.fixture(scope="module")
def guarded() -> Iterator[Cluster]:
    """A broker that looks at who may write where."""
    with skipping(), Cluster(extra_config=GUARDED) as cluster:
        yield cluster


def test_a_second_worker_joins_while_events_are_parked(guarded: Cluster, namespace: str) -> None:
    """T5, B2: a target that we may not write to holds up nobody: its events are parked, the others arrive. A second
    worker learns what is parked from its share of the partitions; once we may, all arrive in order, and later ones go
    straight, none of them twice."""
    shop = ParkedShop(guarded.bootstrap, guarded.bootstrap, namespace)
    create_topic(guarded.bootstrap, shop.topic(SICK), 3)
    deny(guarded.bootstrap, shop.topic(SICK))
    with shop.worker() as first:
        first.wait_ready()
        shop.stage(SICK, 300)
        shop.stage(WELL, 300)
        shop.wait_committed(first)
        assert record_count(guarded.bootstrap, shop.topic(WELL)) == 300
        parked = {record.header["park-reason"] for record in shop.parked()}
        assert any(b"auth_error" in reason for reason in parked)
        with shop.worker() as second:
            second.wait_ready()
            shop.stage(SICK, 300)
            shop.wait_committed(second)
            deny(guarded.bootstrap, shop.topic(SICK), denied=False)
            shop.wait_delivered(repeats=True)  # what is being sent while the right comes back may come twice
            shop.wait_drained()
            doubles = len(shop.on(SICK)) - 600
            shop.stage(SICK, 100)
            shop.wait_delivered(repeats=True)
            shop.assert_no_dead_letters()
            assert (first.terminate(), second.terminate()) == (0, 0)
    assert len(shop.on(SICK)) == 700 + doubles


def test_a_release_does_not_wait_for_the_breaker(guarded: Cluster, namespace: str) -> None:
    """P6: what is released to a target that takes nothing stays parked, counted and with the reason; once it takes
    events again, all is delivered, in order, though its breaker is open for an hour."""
    shop = ParkedShop(guarded.bootstrap, guarded.bootstrap, namespace)
    create_topic(guarded.bootstrap, shop.topic(SICK), 3)
    deny(guarded.bootstrap, shop.topic(SICK))
    with shop.worker({"STREAMING_ADMIN_TOKENS": TOKENS, "STREAMING_CB_TIMEOUT_S": "3600"}) as worker:
        site = Site(worker.wait_ready())
        shop.stage(SICK, 200)
        shop.wait_committed(worker)

        def release() -> Mapping[str, Any]:
            job = site.post(f"/breakers/{shop.topic(SICK)}/release").data["job"]["id"]
            wait_until(
                lambda: site.get(f"/jobs/{job}/").data["job"]["state"] == "done", 60, "the end of the job"
            )
            found: Mapping[str, Any] = site.get(f"/jobs/{job}/").data["job"]
            return found

        refused = release()
        assert (refused["done"], refused["held"]) == (0, {"still_parked": 200})
        assert "auth_error" in refused["error"]
        assert record_count(guarded.bootstrap, shop.topic("parked")) == 200
        deny(guarded.bootstrap, shop.topic(SICK), denied=False)
        wait_until(lambda: release()["held"] == {}, 60, "the right to be back everywhere")
        shop.wait_delivered(repeats=True)  # what was being sent while the right came back may come twice
        target = next(t for t in site.get("/breakers/").data["targets"] if t["target"] == shop.topic(SICK))
        assert (target["state"], target["parked_records"]) == ("open", 0)
        shop.assert_no_dead_letters()


def test_a_target_that_is_gone_opens_its_breaker_at_once(guarded: Cluster, namespace: str) -> None:
    """B2: `topic_not_found` opens the breaker without waiting for anything; the topic is made again by the probe,
    with the partition count of today, and gets what was parked, in order."""
    shop = ParkedShop(guarded.bootstrap, guarded.bootstrap, namespace)
    create_topic(guarded.bootstrap, shop.topic(SICK), 5)
    with shop.worker({"STREAMING_TARGET_SOFT_TIMEOUT_S": "60"}) as worker:
        worker.wait_ready()
        shop.stage(SICK, 50)
        shop.wait_delivered()
        admin = AdminClient({"bootstrap.servers": guarded.bootstrap})
        admin.delete_topics([shop.topic(SICK)])[shop.topic(SICK)].result(30)
        shop.wanted.clear()  # what was on it is gone
        shop.stage(SICK, 200)
        shop.wait_committed(worker)
        worker.wait_log("reason='topic_not_found")
        shop.wait_delivered()
        assert partition_count(guarded.bootstrap, shop.topic(SICK)) == 3
        shop.assert_no_dead_letters()


def test_a_full_partition_waits(guarded: Cluster, namespace: str) -> None:
    """E, T6: beyond PARK_MAX_BYTES nothing more is parked: the partition waits, and what it waits for is told by
    name; once the target is well all arrives, in order."""
    shop = ParkedShop(guarded.bootstrap, guarded.bootstrap, namespace)
    create_topic(guarded.bootstrap, shop.topic(SICK), 3)
    deny(guarded.bootstrap, shop.topic(SICK))
    with shop.worker({"STREAMING_PARK_MAX_BYTES": "20000"}) as worker:
        worker.wait_ready()
        shop.stage(SICK, 200, tenants=1)
        shop.wait_committed(worker)
        shop.stage(SICK, 200, tenants=1)
        wait_until(lambda: "PARK_MAX_BYTES" in readiness(worker), 30, "a partition that waits")
        assert record_count(guarded.bootstrap, shop.topic("parked")) == 200
        deny(guarded.bootstrap, shop.topic(SICK), denied=False)
        shop.wait_delivered(60)
        shop.wait_committed(worker)


def test_a_newer_worker_drains_what_an_older_did_not_know(guarded: Cluster, namespace: str) -> None:
    """C3: events of a definition that the worker does not know are parked under its name, with a word in the log; a
    worker that knows it delivers them, in order, before later ones; nothing is dead-lettered."""
    shop = ParkedShop(guarded.bootstrap, guarded.bootstrap, namespace)
    with shop.worker() as old:
        old.wait_ready()
        shop.stage("gift.sent", 100)
        shop.stage(WELL, 50)
        shop.wait_committed(old)
        old.wait_log("parking.unknown name='definition:gift.sent'")
        assert {record.header["park-target"] for record in shop.parked()} == {b"definition:gift.sent"}
        assert len(read_all(guarded.bootstrap, shop.topic(WELL))) == 50
        assert old.terminate() == 0
    shop.stage("gift.sent", 100)
    with shop.worker(catalog="tests.catalogs.shop_next") as new:
        shop.wait_delivered()
        shop.stage("gift.sent", 50)
        shop.wait_delivered()
        shop.wait_drained()
        shop.assert_no_dead_letters()
        assert new.terminate() == 0


def limit_records(bootstrap: str, topic: str, size: int) -> None:
    """Let a topic take records up to this size only."""
    change = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[change])
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.incremental_alter_configs([resource])[resource].result(10)


def test_what_the_parked_topic_refuses_is_not_overtaken(guarded: Cluster, namespace: str) -> None:
    """P2, P5: where somebody has made the parked topic take less than staging does, a record it refuses is neither
    dropped nor dead-lettered nor overtaken: all that is to be parked behind it waits, by a named cause, and nothing of
    it is committed. Once the topic takes it again all goes on, in order."""
    shop = ParkedShop(guarded.bootstrap, guarded.bootstrap, namespace)
    with shop.worker() as worker:
        worker.wait_ready()
        limit_records(guarded.bootstrap, shop.topic("parked"), 2_000)
        shop.stage("gift.sent", 1, tenants=1)
        shop.wait_committed(worker)
        shop.stage("gift.sent", 1, tenants=1, value=b'"%s"' % os.urandom(4_000).hex().encode())
        shop.stage("gift.sent", 50, tenants=1)
        shop.stage(WELL, 10, tenants=1)
        wait_until(lambda: len(shop.on(WELL)) == 10, 30, "the other target")
        wait_until(lambda: "parked does not take records" in readiness(worker), 30, "the cause")
        assert record_count(guarded.bootstrap, shop.topic("parked")) == 1
        limit_records(guarded.bootstrap, shop.topic("parked"), 1_000_000)
        shop.wait_committed(worker)
        parked = [record.header["stage-id"].decode() for record in shop.parked()]
        assert parked == shop.wanted["gift.sent", b"tenant-0"]
        shop.assert_no_dead_letters()
        assert worker.terminate() == 0
    with shop.worker(catalog="tests.catalogs.shop_next") as new:
        shop.wait_delivered()
        shop.wait_drained()
        assert new.terminate() == 0


def test_unknown_definitions_may_be_dead_lettered(guarded: Cluster, namespace: str) -> None:
    """C3, E: with UNKNOWN_DEFINITION=dlq they are dead-lettered with disposition `operator`, also those that were
    parked before."""
    shop = ParkedShop(guarded.bootstrap, guarded.bootstrap, namespace)
    with shop.worker() as worker:
        worker.wait_ready()
        shop.stage("gift.sent", 20)
        shop.wait_committed(worker)
        assert worker.terminate() == 0
    shop.stage("gift.sent", 20)
    with shop.worker({"STREAMING_UNKNOWN_DEFINITION": "dlq"}) as worker:
        dead = shop.topic("staging.dlq")
        wait_until(lambda: record_count(guarded.bootstrap, dead) == 40, 40, "dead letters")
        shop.wait_committed(worker)
    letters = read_all(guarded.bootstrap, dead)
    assert {letter.header["dlq-disposition"] for letter in letters} == {b"operator"}
    assert not any(name.startswith("park-") for letter in letters for name in letter.header)
