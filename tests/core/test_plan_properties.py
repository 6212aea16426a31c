"""Planning, for any records whatever: nothing is lost, doubled, reordered or fatal (T5, T6)."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from pipeline.cloudevents import read
from pipeline.packing import join, unpack
from pipeline.partition import partition_of
from pipeline.plan import Limits, Plan, plan
from pipeline.record import RawHeader
from pipeline.routes import Router
from pipeline.staging import NAMES
from tests.core.staged_records import CATALOG, COUNTS, LIMITS, SEAL, Staged, planned, router, staged

ROUTERS = (router("ce_"), router("ce-", policies="order.paid.enabled=false; order.created.dlq=never"))

# Legal and illegal values side by side, so that every way through the planner is taken.
_VALUES: dict[str, tuple[bytes | None, ...]] = {
    "stage-version": (b"1", b"2", b"", None),
    "stage-definition": (*(d.key.encode() for d in CATALOG), b"no.such", b"\xff", b"", None),
    "stage-id": (b"id-1", "ä€😀".encode(), b"", b"\xc3", b"a\x00b", b"x" * 257, None),
    "stage-time": (b"2026-01-02T03:04:05Z", b"2026-02-30T00:00:00Z", b"now", b"", None),
    "stage-source": (b"//shop/web", b"//bank/payouts", b"", b"\xa9", b"s" * 3000, None),
    "stage-tenant": (b"acme", b"", b"\xff", b"t" * 257, None),
    "stage-subject": (b"order-1", b"\xa9", b"", b"s" * 1025, None),
    "stage-policy": (
        b"",
        b"dlq=never",
        b"enabled=false",
        b"enabled=true;dlq=never",
        b"dlq=maybe",
        b"\xff",
        None,
    ),
    "stage-catalog": (SEAL, b"other", b"c" * 9000, None),
}
_ANY_NAME = st.one_of(st.sampled_from(sorted(NAMES)), st.text(max_size=12), st.just("\udcff\udcfe"))
_ANY_HEADER = st.tuples(_ANY_NAME, st.none() | st.binary(max_size=12))


@st.composite
def _nearly_sound(draw: st.DrawFn) -> list[RawHeader]:
    headers: list[RawHeader] = []
    for name, values in _VALUES.items():
        if draw(st.integers(0, 5)):
            headers.append((name, draw(st.sampled_from(values))))
    headers += draw(st.lists(_ANY_HEADER, max_size=3))
    return draw(st.permutations(headers))


RECORDS = st.lists(
    st.builds(
        Staged,
        headers=st.one_of(_nearly_sound(), st.lists(_ANY_HEADER, max_size=6)),
        value=st.one_of(st.none(), st.just(b"{}"), st.just(b'{"cents": 1}'), st.binary(max_size=20)),
        key=st.none() | st.binary(max_size=8),
    ),
    max_size=12,
)


def _places(result: Plan) -> list[int]:
    in_columns = [index for column in result.columns.values() for index in column.sources]
    return sorted([*in_columns, *(rejected.index for rejected in result.rejected)])


@given(RECORDS, st.sampled_from(ROUTERS), st.sampled_from([LIMITS, Limits(10, 400), Limits(1, 1)]))
def test_every_record_has_exactly_one_end(records: list[Staged], using: Router, limits: Limits) -> None:
    """T6: each record stands exactly once in a column or among the rejected, and no content makes planning raise."""
    result = plan(records, using, COUNTS, limits)
    assert _places(result) == list(range(len(records)))
    assert not result.unknown_topics


@given(RECORDS)
def test_columns_keep_the_order_and_the_payload(records: list[Staged]) -> None:
    """T5, T2: a column holds its records in staging order, values untouched, on the partition of their key (T4)."""
    result = planned(*records, using=ROUTERS[0])
    for (topic, partition), column in result.columns.items():
        assert column.route.topic == topic
        assert column.sources == sorted(set(column.sources))
        assert len(column.records) == len(column.sources)
        for (key, value, _), source in zip(map(unpack, column.records), column.sources, strict=True):
            assert value == records[source].value
            assert key
            assert partition_of(key, COUNTS[topic]) == partition


@given(*[st.integers(0, 250)] * 5)
def test_a_column_knows_what_it_takes(id_: int, tenant: int, subject: int, value: int, other: int) -> None:
    """S5: no column is larger than it says; a lane puts it into a batch on its word. Drawn are lengths."""
    changes = {"id": b"i" * (id_ + 1), "tenant": b"t" * tenant, "subject": b"s" * subject}
    record = staged(changes, value=b'{"note": "%s"}' % (b"v" * value), more=[("note", b"n" * other)])
    result = planned(record, record)
    assert result.columns
    for column in result.columns.values():
        assert len(join(column.records)) <= column.size


@given(RECORDS, st.sampled_from(ROUTERS))
def test_whatever_is_delivered_is_a_cloudevent(records: list[Staged], using: Router) -> None:
    """T2: each planned record reads back as a legal CloudEvent with the id, time, source and data that were staged."""
    result = plan(records, using, COUNTS, LIMITS)
    for column in result.columns.values():
        for (_, value, headers), source in zip(map(unpack, column.records), column.sources, strict=True):
            event = read(value, headers)
            fields = dict(records[source].headers)
            assert event.id.encode() == fields["stage-id"]
            assert event.source.encode() == fields["stage-source"]
            assert event.attributes["time"].encode() == fields["stage-time"]
            assert event.attributes.get("subject", "").encode() == (fields.get("stage-subject") or b"")
            assert event.data == records[source].value


@given(RECORDS, st.sets(st.sampled_from(CATALOG.topics)))
def test_an_unknown_topic_is_told_and_disturbs_no_other(records: list[Staged], unknown: set[str]) -> None:
    """T6: what waits for a partition count is missing from the plan and its topic is named; the rest is as ever."""
    complete = planned(*records, using=ROUTERS[0])
    known = {topic: count for topic, count in COUNTS.items() if topic not in unknown}
    partial = plan(records, ROUTERS[0], known, LIMITS)
    wanted: defaultdict[str, list[int]] = defaultdict(list)
    for (topic, _), column in complete.columns.items():
        wanted[topic] += column.sources
    assert partial.unknown_topics == unknown & wanted.keys()
    assert [r.index for r in partial.rejected] == [r.index for r in complete.rejected]
    assert {at: c.sources for at, c in partial.columns.items()} == {
        at: c.sources for at, c in complete.columns.items() if at[0] not in unknown
    }


@given(st.lists(st.sampled_from(["acme", "globex", ""]), max_size=20))
def test_one_key_has_one_order(tenants: list[str]) -> None:
    """T5: the records of one tenant end in one column, in staging order."""
    records = [staged({"tenant": name.encode(), "id": b"same"}) for name in tenants]
    result = planned(*records)
    for name in set(tenants):
        indices = [index for index, tenant in enumerate(tenants) if tenant == name]
        (column,) = [c for c in result.columns.values() if indices[0] in c.sources]
        assert [index for index in column.sources if index in set(indices)] == indices


def test_planning_twice_gives_the_same() -> None:
    """T5: a batch that is planned again, after a wait, is planned alike: memories change nothing."""
    records = [staged({"id": f"{i}".encode(), "subject": f"s{i % 3}".encode()}) for i in range(50)]
    using = router()
    first, second = planned(*records, using=using), planned(*records, using=using)
    assert {at: c.records for at, c in first.columns.items()} == {
        at: c.records for at, c in second.columns.items()
    }
