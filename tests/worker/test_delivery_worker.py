"""One real worker, one real Kafka: every kind of event and every kind of failure, read back by librdkafka.

Everything is staged before the first test, some of it before the worker's first start; the worker has committed it
all when a test begins.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cache, partial

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from devtools.kafka import Brokers
from pipeline import Settings, Stager
from pipeline.cloudevents import is_framing_header
from pipeline.staging import RawHeader
from tests.worker.shop_records import (
    CATALOG,
    produce_in_transaction,
    produce_raw,
    read_raw,
    staged,
    wait_committed,
)
from tests.worker_harness import (
    OutRecord,
    Record,
    WorkerProcess,
    committed,
    create_topic,
    partition_count,
    produce,
    read_all,
    record_count,
    wait_until,
)

pytestmark = pytest.mark.kafka

TENANT = "café".encode()
TRACE = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
HOSTILE: list[RawHeader] = [(b"\xff\xfename".decode(errors="surrogateescape"), b"\x00")]
NOISE = os.urandom(5_000)  # does not compress, so that a broker's limit counts every byte

HAPPY = [
    staged(
        "full",
        {"definition": b"order.created@2", "tenant": TENANT, "subject": b"order-7"},
        more=[TRACE, ("x", b"1"), ("y", b"\xff"), ("x", b"2")],
        value=b'{"a":  1}',
    ),
    staged("system", {"definition": b"clock.ticked", "tenant": b"acme"}),
    staged("subject", {"subject": b"s-1"}),
    staged("bare"),
    staged("tombstone", value=None),
    staged("bytes", {"definition": b"report.made"}, value=b"\x00\xff"),
]
POISON = [
    staged("no-time", without="time", value=b"\x00\xff", more=[("x", b"1"), ("x", b"2")]),
    staged("source", {"definition": b"payout.sent"}),
    staged("body", {"definition": b"order.paid"}, value=b'{"cents": "hunter2"}'),
    staged("not-json", value=b"{"),
    staged("large", value=b'"' + b"x" * 999_999 + b'"'),
    staged("refused", {"definition": b"report.made", "tenant": b"t"}, value=NOISE, more=[TRACE]),
    staged("unknown", {"definition": b"no.such"}),
    staged("version", {"version": b"9"}),
    staged("off", {"definition": b"payout.sent", "source": b"//bank/payouts"}),
    staged("fat", {"definition": b"fax.sent"}, value=NOISE),
]
SKIPPED = [
    staged("skipped", {"definition": b"hint.given"}, value=b"{"),
    staged("call", {"policy": b"dlq=never"}, value=b"{"),
]
EARLY = [
    staged(
        f"early-{number}",
        {"tenant": b"early", "definition": (b"order.created", b"order.created@2")[number % 2]},
        value=b"%d" % number,
    )
    for number in range(1_500)
]
SEQUENCE = [
    staged(f"seq-{number:03}", {"tenant": b"seq"}, value=b"{" if number % 10 == 7 else b"%d" % number)
    for number in range(200)
]


class Shop:
    """A worker that has ended everything staged above, and what is on its topics."""

    def __init__(self, bootstrap: str, namespace: str, worker: WorkerProcess) -> None:
        self.bootstrap = bootstrap
        self.namespace = namespace
        self.worker = worker
        self.at: dict[str, tuple[int, int]] = {}
        self.read = cache(self._read)

    def topic(self, name: str) -> str:
        """A topic's full name."""
        return f"{self.namespace}.{name}"

    def stage(self, records: Sequence[OutRecord]) -> list[tuple[int, int]]:
        """Write staging records and note their places by event id."""
        places = produce(self.bootstrap, self.topic("staging"), records)
        for record, place in zip(records, places, strict=True):
            self.at[dict(record.headers)["stage-id"].decode()] = place
        return places

    def one(self, topic: str, event_id: str) -> Record:
        """The one record of this event on a topic, delivered or dead."""
        names = ("ce_id", "stage-id")
        (found,) = [
            r for r in self.read(topic) if event_id.encode() in {r.header.get(name) for name in names}
        ]
        return found

    def _read(self, name: str) -> list[Record]:
        return read_all(self.bootstrap, self.topic(name))


async def _stage_with_the_client(settings: Settings) -> list[tuple[int, int]]:
    async with Stager(settings) as stager:
        done = await asyncio.gather(
            *(
                stager.stage(
                    "order.paid",
                    {"cents": n},
                    id=f"ours-{n}",
                    tenant="ours",
                    time=datetime(2026, 1, n, tzinfo=UTC),
                )
                for n in range(1, 9)
            )
        )
    return [(staged.partition or 0, staged.offset or 0) for staged in done]


@pytest.fixture(scope="module")
def shop(kafka: Brokers) -> Iterator[Shop]:
    """The worker, with some topics made beforehand, after everything was staged and has ended."""
    namespace = f"t{os.urandom(4).hex()}"
    bootstrap = kafka.bootstrap
    create_topic(bootstrap, f"{namespace}.staging", 6)
    create_topic(bootstrap, f"{namespace}.report.made", 3, {"max.message.bytes": "2000"})
    create_topic(bootstrap, f"{namespace}.payout.sent", 2)
    create_topic(bootstrap, f"{namespace}.fax.sent.dlq", 1, {"max.message.bytes": "3000"})
    create_topic(bootstrap, f"{namespace}.parcel.lost.dlq", 1, {"max.message.bytes": "200"})
    env = {"STREAMING_EVENT_POLICIES": "payout.sent.enabled=false", "STREAMING_TYPE_PREFIX": "com.shop"}
    worker = WorkerProcess(bootstrap, namespace, catalog=CATALOG, env=env)
    found = Shop(bootstrap, namespace, worker)
    places = found.stage(EARLY)
    with worker:
        worker.wait_ready()
        settings = Settings(
            brokers=(bootstrap,), catalog=CATALOG, cloudevents_source="//shop/ours", namespace=namespace
        )
        places += asyncio.run(_stage_with_the_client(settings))
        places += found.stage([*HAPPY, *POISON, *SKIPPED, *SEQUENCE])
        hostile: list[RawHeader] = [*staged("hostile", {"definition": b"trap.sprung"}).headers, *HOSTILE]
        nulls: list[RawHeader] = [*staged("nulls").headers, ("stage-tenant", None), ("x", None)]
        for event_id, headers in (("hostile", hostile), ("nulls", nulls)):
            place = produce_raw(bootstrap, found.topic("staging"), 0, event_id.encode(), b"{}", headers)
            found.at[event_id] = place
            places.append(place)
        for event_id, commit in (("aborted", False), ("transacted", True)):
            record = staged(event_id, {"tenant": b"seq"})
            place = produce_in_transaction(
                bootstrap, found.topic("staging"), record, namespace, commit=commit
            )
            places.append(place)
        places += found.stage([staged("behind", partition=0)])
        wait_committed(worker, bootstrap, namespace, places)
        yield found


# --- what is delivered


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


# --- what is dead-lettered


def _dead(shop: Shop, topic: str, event_id: str) -> tuple[Record, dict[str, str]]:
    """A dead letter that has the staging record byte for byte in front, and its forensics by name."""
    dead = shop.one(topic, event_id)
    (original,) = [r for r in POISON if dict(r.headers)["stage-id"] == event_id.encode()]
    before = list(original.headers)
    assert dead.key == original.key
    assert dead.headers[: len(before)] == before
    ours = [(name, value.decode()) for name, value in dead.headers if name.startswith("dlq-")]
    assert dead.headers[-len(ours) :] == [(name, value.encode()) for name, value in ours]
    assert [name.removeprefix("dlq-") for name, _ in ours[:10]] == [
        "source-topic",
        "error-class",
        "error-message",
        "retry-count",
        "first-failure-at",
        "producer-id",
        "staging-partition",
        "staging-offset",
        "disposition",
        "fingerprint",
    ]
    facts = {name.removeprefix("dlq-"): value for name, value in ours}
    partition, offset = shop.at[event_id]
    assert (facts["staging-partition"], facts["staging-offset"]) == (str(partition), str(offset))
    assert facts["source-topic"] == shop.topic(topic.removesuffix(".dlq"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", facts["first-failure-at"])
    assert re.fullmatch(r"stagepost/[0-9a-f-]{36}", facts["producer-id"])
    assert re.fullmatch(r"[0-9a-f]{16}", facts["fingerprint"])
    if "payload-omitted" not in facts:
        assert dead.value == original.value
        assert len(ours) == 10
    return dead, facts


@pytest.mark.parametrize(
    ("event_id", "topic", "error_class", "disposition", "says"),
    [
        ("no-time", "order.created.dlq", "validation_error", "poison", "missing: stage-time"),
        ("source", "payout.sent.dlq", "validation_error", "poison", "may not stage 'payout.sent'"),
        ("body", "order.paid.dlq", "validation_error", "poison", "does not match the definition"),
        ("not-json", "order.created.dlq", "validation_error", "poison", "not JSON"),
        ("large", "order.created.dlq", "validation_error", "poison", "the cap is 1,000,000"),
        ("refused", "report.made.dlq", "serialization_error", "poison", "refused by the broker"),
        (
            "unknown",
            "staging.dlq",
            "validation_error",
            "operator",
            "'no.such' is not in this worker's catalog",
        ),
        ("version", "order.created.dlq", "validation_error", "operator", "stage-version '9'"),
        ("off", "payout.sent.dlq", "validation_error", "operator", "'payout.sent' is disabled"),
        ("fat", "fax.sent.dlq", "validation_error", "operator", "'fax.sent' is disabled"),
    ],
)
def test_dead_letters(
    shop: Shop, event_id: str, topic: str, error_class: str, disposition: str, says: str
) -> None:
    """Q1, Q2, C3, D6: each failure ends on its topic, original in front byte for byte, then what an operator needs."""
    dead, facts = _dead(shop, topic, event_id)
    assert facts["error-class"] == error_class
    assert facts["disposition"] == disposition
    assert says in facts["error-message"]
    assert "hunter2" not in facts["error-message"]
    framed = [name for name, _ in dead.headers if name.startswith("ce_") or name == "content-type"]
    assert bool(framed) == (event_id == "refused")


def test_framed_headers_follow_the_originals(shop: Shop) -> None:
    """Q2: what the target refused had been framed: its CloudEvents headers stand between, and nothing stands twice."""
    dead, _ = _dead(shop, "report.made.dlq", "refused")
    names = [name for name, _ in dead.headers]
    assert len(set(names)) == len(names)
    first, last = names.index("content-type"), names.index("dlq-source-topic")
    between = dict(dead.headers[first:last])
    assert first == names.index("traceparent") + 1
    assert {"ce_id", "ce_type", "ce_tenantid", "ce_partitionkey"} <= between.keys()
    assert all(name.startswith("ce_") or name == "content-type" for name in between)


def test_only_the_payload_is_left_out(shop: Shop) -> None:
    """Q2: a record too large for its dead-letter topic loses its payload and nothing else."""
    dead, facts = _dead(shop, "fax.sent.dlq", "fat")
    assert dead.value is None
    assert facts["payload-omitted"] == "true"
    assert facts["payload-bytes"] == str(len(NOISE))


def test_dead_letter_topics_are_shaped_like_their_targets(shop: Shop) -> None:
    """Q1: as many partitions as the target, also where no record ever reached it; staging's own as many as staging."""
    for target, partitions in (("report.made", 3), ("payout.sent", 2), ("order.created", 6), ("staging", 6)):
        assert partition_count(shop.bootstrap, shop.topic(target)) == partitions
        assert partition_count(shop.bootstrap, shop.topic(f"{target}.dlq")) == partitions


def test_a_skip_leaves_an_audit_record_and_no_dead_letter(shop: Shop) -> None:
    """D6, T6: `dlq=never`, by the definition or by the call: id, coordinates and reason in `<ns>.audit`."""
    entries = {entry["id"]: entry for entry in (json.loads(r.value or b"") for r in shop.read("audit"))}
    assert entries.keys() == {"skipped", "call"}
    for event_id, entry in entries.items():
        assert (entry["partition"], entry["offset"]) == shop.at[event_id]
        assert entry["topic"] == shop.topic("staging")
        assert "not JSON" in entry["reason"]
    assert b"skipped" not in {r.header["stage-id"] for r in read_all(shop.bootstrap, "all.hints.dlq")}
    assert b"call" not in {r.header["stage-id"] for r in shop.read("order.created.dlq")}


def test_a_hostile_header_name_does_not_stop_the_partition(shop: Shop) -> None:
    """S10, Q2: a header name that is not UTF-8 is poison like any other: dead-lettered byte for byte, and what
    is staged behind it is delivered."""
    assert shop.one("order.created", "behind").offset >= 0
    ((_, key, value, headers),) = read_raw(shop.bootstrap, shop.topic("trap.sprung.dlq"))
    assert (key, value) == (b"hostile", b"{}")
    assert HOSTILE[0] in headers
    assert b"is not UTF-8" in (dict(headers)["dlq-error-message"] or b"")


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
    shop.worker.wait_log(f"{shop.topic('parcel.lost.dlq')} refuses a record")
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
