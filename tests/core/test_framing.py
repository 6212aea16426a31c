"""What stands on the target: topic, key, partition, and every attribute in both dialects (T1 to T4)."""

from __future__ import annotations

import pytest

from pipeline.packing import unpack
from pipeline.partition import partition_of
from pipeline.plan import Column, Plan
from pipeline.record import OutRecord, RawHeader
from tests.core.staged_records import CATALOG, COUNTS, SEAL, planned, router, staged


def only(result: Plan) -> tuple[Column, OutRecord]:
    """The one record of a plan, and its column."""
    assert not result.rejected, result.rejected[0].failure
    (column,) = result.columns.values()
    (packed,) = column.records
    return column, unpack(packed)


@pytest.mark.parametrize(
    ("definition", "topic"),
    [
        ("order.created", "shop.order.created"),
        ("order.created@2", "shop.order.created.v2"),
        ("hint.given", "all.hints"),
    ],
)
def test_topic(definition: str, topic: str) -> None:
    """T1: namespace, resource and event type; `.v<major>` from 2 on; or the definition's own topic."""
    column, _ = only(planned(staged({"definition": definition.encode()})))
    assert column.route.topic == topic
    assert column.route.dlq == f"{topic}.dlq"  # Q1


FULL = {
    "definition": b"order.created@2",
    "tenant": "café".encode(),
    "subject": b"order-7",
    "catalog": SEAL,
}
_TRACE: list[RawHeader] = [
    ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("tracestate", b"a=1"),
]


def test_every_attribute() -> None:
    """T2: binary mode exactly: content-type, ce_ attributes, the extensions, trace headers plain; value untouched."""
    _, (key, value, headers) = only(planned(staged(FULL, more=_TRACE, value=b'{"a":  1}')))
    assert value == b'{"a":  1}'
    assert key == "café".encode()
    assert sorted(headers, key=lambda header: header[0]) == [
        ("ce_dataschema", b"https://example.com/schemas/order-2.json"),
        ("ce_eventtype", b"created"),
        ("ce_id", b"id-1"),
        ("ce_partitionkey", "café".encode()),
        ("ce_resourcetype", b"order"),
        ("ce_schemaversion", b"2.4.0"),
        ("ce_source", b"//shop/web"),
        ("ce_specversion", b"1.0"),
        ("ce_subject", b"order-7"),
        ("ce_tenantid", "café".encode()),
        ("ce_time", b"2026-01-02T03:04:05Z"),
        ("ce_type", b"com.shop.order.created"),
        ("content-type", b"application/json; charset=utf-8"),
        *_TRACE,
    ]


def test_the_other_dialect() -> None:
    """T2: `ce-` writes the seed library's names for the same values, and no `content-type`."""
    _, (_, _, ours) = only(planned(staged(FULL, more=_TRACE)))
    _, (_, _, theirs) = only(planned(staged(FULL, more=_TRACE), using=router("ce-")))
    renamed = {
        name.replace("ce_", "ce-").replace("content-type", "ce-datacontenttype"): v for name, v in ours
    }
    assert dict(theirs) == renamed
    assert len(theirs) == len(ours)


def test_optional_attributes_are_left_out() -> None:
    """T2: no subject, tenant, data schema or system mark where there is none; empty counts as absent (S1)."""
    _, (_, _, headers) = only(planned(staged({"tenant": b"", "subject": b""})))
    names = [name for name, _ in headers]
    assert names == sorted(set(names), key=names.index)
    assert not {"ce_subject", "ce_tenantid", "ce_dataschema", "ce_systemevent"} & set(names)


def test_a_system_event() -> None:
    """T2, T3: marked `true`, never with a tenant, keyed by its event type."""
    _, (key, _, headers) = only(planned(staged({"definition": b"clock.ticked", "tenant": b"acme"})))
    fields = dict(headers)
    assert key == fields["ce_partitionkey"] == b"system:ticked"
    assert fields["ce_systemevent"] == b"true"
    assert "ce_tenantid" not in fields


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"tenant": b"acme", "subject": b"s-1"}, b"acme"),
        ({"tenant": b"", "subject": b"s-1"}, b"s-1"),
        ({"subject": b""}, b"id-1"),
        ({}, b"id-1"),
    ],
)
def test_key_and_partition(fields: dict[str, bytes | None], key: bytes) -> None:
    """T3, T4: tenant, else subject, else id, never empty and whatever the record's own key; murmur2 of that."""
    result = planned(staged(fields, key=b"something else"))
    column, record = only(result)
    assert record[0] == dict(record[2])["ce_partitionkey"] == key
    assert list(result.columns) == [(column.route.topic, partition_of(key, COUNTS[column.route.topic]))]


@pytest.mark.parametrize("value", [None, b"", b"\x00\xff not JSON"])
def test_values_travel_untouched(value: bytes | None) -> None:
    """T2: no data is a null value, empty is empty, any bytes are those bytes."""
    _, record = only(planned(staged({"definition": b"report.made"}, value=value)))
    assert record[1] == value


def test_headers_of_the_caller_travel_on() -> None:
    """T2, Q3: other headers go on in order, repeated ones too, a null one too; reserved names never reach a target."""
    passed: list[RawHeader] = [
        ("b", b"1"),
        ("a", b"2"),
        ("b", b"3"),
        ("n", None),
        ("Ünï", b"\xff"),
        ("", b""),
        ("parkour", b"4"),
    ]
    reserved: list[RawHeader] = [
        ("ce_id", b"forged"),
        ("ce-id", b"forged"),
        ("content-type", b"text/html"),
        ("dlq-first-failure-at", b"2026-01-01T00:00:00Z"),
        ("dlq-redrive-count", b"3"),
        ("stage-later", b"a header of a later version"),
        ("park-target", b"forged"),
    ]
    more = [header for pair in zip(passed, reserved, strict=True) for header in pair]
    _, (_, _, headers) = only(planned(staged(more=more)))
    _, (_, _, bare) = only(planned(staged()))
    assert headers == [*bare, *passed]


def test_a_null_value_is_as_good_as_no_header() -> None:
    """S10: Kafka lets a header be null; an optional one that is null is absent."""
    nulls: dict[str, bytes | None] = {"tenant": None, "subject": None, "policy": None, "catalog": None}
    _, record = only(planned(staged(nulls)))
    _, bare = only(planned(staged()))
    assert record == bare


def test_constant_headers_are_packed_once() -> None:
    """T2: a definition's constant headers are bytes made once, which each of its records has."""
    using = router()
    route = using.route(b"order.created")
    assert route is not None
    for id_ in (b"1", b"2"):
        column, _ = only(planned(staged({"id": id_}), using=using))
        assert column.records[0].count(route.packed) == 1


def test_topics_of_the_catalog_are_those_of_the_plan() -> None:
    """T1: the planner asks for the counts of the catalog's topics and no other."""
    records = [staged({"definition": d.key.encode(), "source": b"//bank/payouts"}) for d in CATALOG]
    found = {topic for topic, _ in planned(*records).columns}
    disabled_and_refused = {"shop.fax.sent", "shop.order.paid"}
    assert found == set(CATALOG.topics) - disabled_and_refused
