"""One real worker, one real Kafka: every kind of event, read back by librdkafka; then what keeps the worker busy.

The last two tests stage more, which none of the others may read: they come last.
"""

from __future__ import annotations

import signal
import threading
from collections import Counter
from functools import partial

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from pipeline.cloudevents import is_framing_header
from tests.kafka_client import (
    OutRecord,
    Record,
    committed,
    create_topic,
    partition_count,
    produce,
    read_all,
    record_count,
    wait_until,
)
from tests.worker.shop import EARLY, HAPPY, NOISE, SEQUENCE, TENANT, TRACE, Shop
from tests.worker.shop_records import (
    staged,
    wait_committed,
)

pytestmark = pytest.mark.kafka


def _judged(record: Record) -> BaseCloudEvent:
    # The SDK decodes every header, also those that are not CloudEvents': it is shown no others.
    headers = {name: value for name, value in record.headers if is_framing_header(name)}
    return from_binary_event(KafkaMessage(headers=headers, key=record.key, value=record.value or b""))


def test_every_event_reads_back_through_the_sdk(shop: Shop) -> None:
    """T2: each delivered record is what the official SDK takes for a CloudEvent, with the id it was staged with."""
    topics = ("order.created", "order.created.v2", "order.paid", "clock.ticked", "report.made")
    events = [_judged(record) for topic in topics for record in shop.read(topic)]
    staged_here = [*EARLY, *HAPPY, *SEQUENCE]
    good = {dict(record.headers)["stage-id"].decode() for record in staged_here if record.value != b"{"}
    good |= {f"ours-{n}" for n in range(1, 9)} | {"nulls", "behind", "transacted"}
    assert Counter(event.get_id() for event in events) == Counter(good)
    assert {event.get_type() for event in events} == {
        "com.shop.order.created",
        "com.shop.order.paid",
        "com.shop.clock.ticked",
        "com.shop.report.made",
    }


def test_all_attributes(shop: Shop) -> None:
    """T1, T2: the record on `<ns>.order.created.v2`, header for header; other headers in order behind."""
    record = shop.one("order.created.v2", "full")
    assert (record.key, record.value) == (TENANT, b'{"a":  1}')
    assert sorted(record.headers[:13]) == [
        ("ce_dataschema", b"https://example.com/schemas/order-2.json"),
        ("ce_eventtype", b"created"),
        ("ce_id", b"full"),
        ("ce_partitionkey", TENANT),
        ("ce_resourcetype", b"order"),
        ("ce_schemaversion", b"2.4.0"),
        ("ce_source", b"//shop/web"),
        ("ce_specversion", b"1.0"),
        ("ce_subject", b"order-7"),
        ("ce_tenantid", TENANT),
        ("ce_time", b"2026-01-02T03:04:05Z"),
        ("ce_type", b"com.shop.order.created"),
        ("content-type", b"application/json; charset=utf-8"),
    ]
    assert record.headers[13:] == [TRACE, ("x", b"1"), ("y", b"\xff"), ("x", b"2")]


def test_a_system_event(shop: Shop) -> None:
    """T2, T3: keyed `system:<event type>`, marked, without a tenant."""
    record = shop.one("clock.ticked", "system")
    assert record.key == record.header["ce_partitionkey"] == b"system:ticked"
    assert record.header["ce_systemevent"] == b"true"
    assert "ce_tenantid" not in record.header


def test_no_data_is_a_null_value(shop: Shop) -> None:
    """T2: a tombstone stays one; bytes stay those bytes."""
    assert shop.one("order.created", "tombstone").value is None
    assert shop.one("report.made", "bytes").value == b"\x00\xff"


def test_what_our_own_client_staged(shop: Shop) -> None:
    """S3, T2: id, time and source of the call; the payload as it was encoded once."""
    for n in range(1, 9):
        record = shop.one("order.paid", f"ours-{n}")
        assert record.value == b'{"cents":%d}' % n
        assert record.header["ce_time"].startswith(b"2026-01-0%d" % n)
        assert record.header["ce_source"] == b"//shop/ours"


def test_partitions_are_those_of_librdkafka(shop: Shop) -> None:
    """T3, T4: tenant, subject or id as the key; librdkafka's `murmur2_random` puts that key on the same partition."""
    delivered = [shop.one("order.created", event_id) for event_id in ("subject", "bare", "tombstone")]
    delivered += [shop.one("order.created.v2", "full"), shop.one("clock.ticked", "system")]
    assert [record.key for record in delivered] == [b"s-1", b"bare", b"tombstone", TENANT, b"system:ticked"]
    probe = shop.topic("probe")
    create_topic(shop.bootstrap, probe, partition_count(shop.bootstrap, shop.topic("order.created")))
    theirs = produce(shop.bootstrap, probe, [OutRecord(record.key, b"") for record in delivered])
    assert [partition for partition, _ in theirs] == [record.partition for record in delivered]


def test_what_was_staged_before_the_first_start(shop: Shop) -> None:
    """T5, N4: events for topics that nobody has yet wait until they are created, then come once and in order."""
    for topic, first in (("order.created", 0), ("order.created.v2", 1)):
        delivered = [r.value for r in shop.read(topic) if r.key == b"early"]
        assert delivered == [b"%d" % number for number in range(first, 1_500, 2)]


def test_bad_records_disturb_no_neighbour(shop: Shop) -> None:
    """T5, C3: of 200 records of one tenant each tenth is poison: the others are delivered once, in order."""
    delivered = [r for r in shop.read("order.created") if r.header["ce_id"].startswith(b"seq-")]
    assert [r.value for r in delivered] == [r.value for r in SEQUENCE if r.value != b"{"]
    assert len({r.partition for r in delivered}) == 1
    dead = [r for r in shop.read("order.created.dlq") if r.key == b"seq"]
    assert [r.header["stage-id"] for r in dead] == [b"seq-%03d" % n for n in range(7, 200, 10)]


def test_an_aborted_transaction_is_no_event(shop: Shop) -> None:
    """S10: a producer in any language may stage in transactions; what it aborted is not delivered, what follows is."""
    delivered = [record.header["ce_id"] for record in shop.read("order.created") if record.key == b"seq"]
    assert delivered[-1] == b"transacted"
    assert b"aborted" not in delivered


def test_null_headers(shop: Shop) -> None:
    """S10: a null staging header is absent; a null header of the caller's travels on (librdkafka reads it as null)."""
    record = shop.one("order.created", "nulls")
    assert record.key == b"nulls"
    assert "ce_tenantid" not in record.header


# --- the worker goes on


def test_a_dead_letter_that_cannot_be_written_holds_its_partition(shop: Shop) -> None:
    """Q4: the offset is not committed while the dead-letter topic takes no record at all, the rest of the partition
    is delivered; when the topic takes records again, the dead letter arrives whole, without a restart."""
    poison = staged("stuck", {"definition": b"parcel.lost"}, without="time", value=NOISE, partition=4)
    behind = staged("ahead", partition=4)
    (stuck, _) = shop.stage([poison, behind])

    def ids(topic: str) -> list[bytes]:
        read = read_all(shop.bootstrap, shop.topic(topic))
        return [r.header.get("ce_id") or r.header["stage-id"] for r in read]

    wait_until(lambda: b"ahead" in ids("order.created"), 20, "the record behind the stuck one")
    shop.worker.wait_log(f"delivery.not_kept topic={shop.topic('parcel.lost.dlq')}")
    group, staging = f"{shop.namespace}-pipeline", shop.topic("staging")
    assert committed(shop.bootstrap, group, staging)[4] <= stuck[1]
    assert ids("parcel.lost.dlq") == []

    change = ConfigEntry("max.message.bytes", "1000000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, shop.topic("parcel.lost.dlq"), incremental_configs=[change])
    admin = AdminClient({"bootstrap.servers": shop.bootstrap})
    admin.incremental_alter_configs([resource])[resource].result(10)
    wait_until(lambda: ids("parcel.lost.dlq") == [b"stuck"], 20, "the dead letter")
    assert read_all(shop.bootstrap, shop.topic("parcel.lost.dlq"))[0].value == NOISE
    wait_until(lambda: committed(shop.bootstrap, group, staging)[4] > stuck[1] + 1, 20, "the commit")


def test_a_clean_stop_delivers_nothing_twice(shop: Shop) -> None:
    """T5: SIGTERM in the middle of the work: it drains and commits, ends with 0, and the next start goes on where
    it stopped: each event once, each tenant's in order."""
    count = 40_000
    records = [
        staged(
            f"n{number}",
            {"definition": b"trap.sprung", "tenant": b"t%d" % (number % 50)},
            value=b"%d" % number,
        )
        for number in range(count)
    ]
    places: list[tuple[int, int]] = []
    producing = threading.Thread(
        target=lambda: places.extend(produce(shop.bootstrap, shop.topic("staging"), records))
    )
    producing.start()
    delivered_so_far = partial(record_count, shop.bootstrap, shop.topic("trap.sprung"))
    wait_until(lambda: delivered_so_far() > 1_000, 30, "the first deliveries")
    shop.worker.signal(signal.SIGTERM)
    assert shop.worker.wait(30) == 0
    producing.join()
    group, staging = f"{shop.namespace}-pipeline", shop.topic("staging")
    done = committed(shop.bootstrap, group, staging)
    assert any(done[partition] <= offset for partition, offset in places), "nothing was left to do"
    shop.worker.start().wait_ready()
    wait_committed(shop.worker, shop.bootstrap, shop.namespace, places)
    delivered = read_all(shop.bootstrap, shop.topic("trap.sprung"))
    assert Counter(int(r.value or b"") for r in delivered) == Counter(range(count))
    last: dict[bytes, int] = {}
    for record in delivered:
        assert record.key is not None
        number = int(record.value or b"")
        assert last.get(record.key, -1) < number
        last[record.key] = number
