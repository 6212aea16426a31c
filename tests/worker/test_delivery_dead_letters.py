"""One real worker, one real Kafka: every kind of failure, read back by librdkafka."""

from __future__ import annotations

import json
import re

import pytest

from tests.kafka_client import (
    Record,
    partition_count,
    read_all,
)
from tests.worker.shop import HOSTILE, NOISE, POISON, Shop
from tests.worker.shop_records import (
    read_raw,
)

pytestmark = pytest.mark.kafka


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
