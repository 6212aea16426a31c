"""Parked records, names, cursors: what is written can be read back, whatever the staging record holds (P1, P4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dlq import Disposition
from pipeline.errors import ErrorClass
from pipeline.kept import moved_on
from pipeline.park import (
    NAMES,
    Checkpoint,
    Choice,
    Cursor,
    Diverted,
    Moved,
    Origin,
    definition_name,
    diverted_by,
    dump_checkpoint,
    is_known,
    is_skew,
    load_checkpoint,
    park_headers,
    unpark,
    version_name,
)
from pipeline.plan import plan
from pipeline.record import RawHeader
from tests.core.staged_records import COUNTS, LIMITS, Staged, catalog, router, staged

HEADERS = st.lists(st.tuples(st.text(max_size=8), st.none() | st.binary(max_size=8)), max_size=6)
TARGET = "shop.order.created"


@given(HEADERS, st.integers(0, 99), st.integers(0, 1 << 60), st.text(max_size=600))
def test_a_parked_record_is_the_staging_record_and_five_headers(
    original: list[RawHeader], partition: int, offset: int, reason: str
) -> None:
    """P1: the headers of the staging record come first, as they are, also where they look like ours; behind them it
    says where the record belongs. A reason of any length and content is cut on a character."""
    origin = Origin(TARGET, partition, offset, reason, 1_767_323_045.25)
    parked = park_headers(original, origin)
    assert parked[: len(original)] == original
    assert [name for name, _ in parked[len(original) :]] == list(NAMES)
    found = unpark(parked)
    assert found is not None
    assert found[0] == original
    assert found[1]._replace(reason="") == origin._replace(reason="")
    again = unpark(park_headers(parked, origin))  # a staging record that was itself once parked
    assert again is not None
    assert again[0] == parked


def test_what_is_no_parked_record_is_told() -> None:
    """P1: what somebody else wrote to the parked topic is not taken for an event."""
    sound = park_headers([], Origin(TARGET, 1, 2, "down", 3.0))
    assert unpark(sound) is not None
    assert unpark([]) is None
    assert unpark(sound[:-1]) is None
    for at, value in ((1, b"x"), (2, None), (4, b"yesterday")):
        broken = list(sound)
        broken[at] = (broken[at][0], value)
        assert unpark(broken) is None


def test_names_of_skew() -> None:
    """C3: a definition or version nobody knows has a name to be parked under, unless nobody can ever know it."""
    assert definition_name(b"gift.sent") == "definition:gift.sent"
    assert definition_name("café".encode()) == "definition:café"
    for never in (b"", b"\xff", b"a\nb", b"x" * 257):
        assert definition_name(never) is None
    assert version_name(b"2") == "version:2"
    for never in (b"", b"two", b"1" * 33, b"-1"):
        assert version_name(never) is None
    assert is_skew("definition:x")
    assert not is_skew(TARGET)
    assert is_known("definition:order.created", catalog())
    assert not is_known("definition:gift.sent", catalog())
    assert is_known("version:1", catalog())
    assert not is_known("version:2", catalog())


def test_what_names_divert() -> None:
    """P2, C3: targets by topic, unknown definitions and versions by what stands in the record."""
    names = [TARGET, "definition:gift.sent", "version:2"]
    assert diverted_by(names, parks_unknown=True) == Diverted({TARGET}, {b"gift.sent"}, {b"2"}, True)


@pytest.mark.parametrize("data", [None, b"", b"{}", b"[]", b'{"upto": "x", "cursors": {}}'])
def test_what_is_no_checkpoint_counts_as_none(data: bytes | None) -> None:
    """P4: then everything parked is counted anew."""
    assert load_checkpoint(data) is None


def test_checkpoints_are_read_back() -> None:
    """P4: all cursors of a partition, in one record."""
    checkpoint = Checkpoint(
        9, {TARGET: Cursor(3, 8, 5, 700, 1.5, "down"), "version:2": Cursor(4, 4, 1, 9, 2.0, "")}
    )
    assert load_checkpoint(dump_checkpoint(checkpoint)) == checkpoint


def planned_indices(records: list[Staged], diverted: Diverted) -> dict[str, list[int]]:
    """What is parked, by name; every record must stand exactly once somewhere."""
    outcome = plan(records, router(), COUNTS, LIMITS, diverted)
    straight = [source for column in outcome.columns.values() for source in column.sources]
    parked = [index for indices in outcome.parked.values() for index in indices]
    rejected = [item.index for item in outcome.rejected]
    assert sorted([*straight, *parked, *rejected]) == list(range(len(records)))
    return outcome.parked


KINDS = st.sampled_from(
    [{"definition": d} for d in (b"order.created", b"order.paid", b"report.made", b"no.such", b"other")]
    + [{"version": b"2"}, {"time": b"never"}]
)


@given(st.lists(st.tuples(KINDS, st.integers(0, 3)), max_size=30), st.booleans(), st.booleans())
def test_what_is_diverted_is_parked_in_order_and_nothing_else(
    kinds: list[tuple[dict[str, bytes], int]], sick: bool, parks_unknown: bool
) -> None:
    """P2, T5: all of a diverted target is parked, in staging order over all of its partitions; the columns of the
    others are what they would be without it; poison is not parked."""
    records = [staged({**kind, "tenant": b"t%d" % tenant}, value=b'{"cents": 1}') for kind, tenant in kinds]
    diverted = Diverted({TARGET} if sick else (), parks_unknown=parks_unknown)
    parked = planned_indices(records, diverted)
    assert all(indices == sorted(indices) for indices in parked.values())

    def of(**fields: bytes) -> list[int]:
        return [i for i, (kind, _) in enumerate(kinds) if kind == fields]

    wanted = {
        TARGET: of(definition=b"order.created") if sick else [],
        "definition:no.such": of(definition=b"no.such") if parks_unknown else [],
        "definition:other": of(definition=b"other") if parks_unknown else [],
        "version:2": of(version=b"2") if parks_unknown else [],
    }
    assert parked == {name: indices for name, indices in wanted.items() if indices}
    usual, others = plan(records, router(), COUNTS, LIMITS), plan(records, router(), COUNTS, LIMITS, diverted)
    for at, column in others.columns.items():
        assert column.records == usual.columns[at].records


def test_a_known_definition_follows_behind_what_was_parked_as_unknown() -> None:
    """C3, T5: while events of a definition are parked under its name, later ones are, too, although this worker knows
    it by now; also where no more unknown names are taken."""
    records = [staged(), staged({"definition": b"report.made"})]
    diverted = Diverted(definitions={b"order.created"})
    assert planned_indices(records, diverted) == {"definition:order.created": [0]}


def test_a_target_without_partition_count_is_parked_while_it_is_shut() -> None:
    """B2: unknown metadata opens a breaker; then nobody waits for it."""
    outcome = plan([staged()], router(), {}, LIMITS, Diverted({TARGET}))
    assert (outcome.parked, outcome.unknown_topics) == ({TARGET: [0]}, set())


def test_a_checkpoint_keeps_what_has_ended_ahead_of_its_turn() -> None:
    """P4, P6: the next owner passes over the same events; a checkpoint without any is one, too."""
    moved = Moved(Choice("acme", "order.created"), 20)
    cursor = Cursor(10, 29, 12, 240, 5.0, "down", (moved,))
    assert load_checkpoint(dump_checkpoint(Checkpoint(30, {TARGET: cursor}))) == Checkpoint(
        30, {TARGET: cursor}
    )
    old = (
        b'{"upto":2,"cursors":{"a":{"first":0,"last":1,"records":2,"bytes":9,"oldest_at":1.0,"reason":"r"}}}'
    )
    assert load_checkpoint(old) == Checkpoint(2, {"a": Cursor(0, 1, 2, 9, 1.0, "r")})
    acme: list[RawHeader] = [("stage-tenant", b"acme"), ("stage-definition", b"order.created")]
    assert [cursor.waits(offset, acme) for offset in (9, 10, 19, 20)] == [False, False, False, True]
    assert cursor.waits(10, [("stage-tenant", b"acme"), ("stage-definition", b"order.paid")])
    assert cursor.waits(10, [("stage-definition", b"order.created")])
    assert Choice(tenant="").has([]), "the empty tenant stands for none"


@pytest.mark.parametrize(
    ("reason", "error_class", "disposition"),
    [
        ("auth_error: [Error 29] TopicAuthorizationFailedError", "auth_error", "systemic"),
        (
            "partition 2 overdue by 2 s: network_timeout: RequestTimedOutError()",
            "network_timeout",
            "systemic",
        ),
        ("partition 2 overdue by 2 s: no answer", "network_timeout", "systemic"),
        ("its metadata is not known", "broker_unavailable", "systemic"),
        ("paused by ann", "broker_unavailable", "operator"),
        ("paused by auth_error", "broker_unavailable", "operator"),
    ],
)
def test_what_is_moved_on_says_why_it_was_parked(reason: str, error_class: str, disposition: str) -> None:
    """P6, Q2: the class is that of the trouble it was parked for, the message says who moved it on, and why."""
    failure = moved_on(TARGET, reason, by="ann", why="they left")
    assert (failure.error_class, failure.disposition) == (ErrorClass(error_class), Disposition(disposition))
    assert failure.message == f"{reason}; moved on from parking by 'ann': 'they left'"
    skew = moved_on("definition:gift.sent", "not known to this worker", by="ann", why="")
    assert (skew.error_class, skew.disposition) == (ErrorClass.VALIDATION, Disposition.OPERATOR)
    assert (
        skew.message == "'definition:gift.sent' is not known to this worker; moved on from parking by 'ann'"
    )
