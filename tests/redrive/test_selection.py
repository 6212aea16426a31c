"""Selections of dead letters: read from text, written back, refused where they mean nothing (O2)."""

from __future__ import annotations

import pytest

from pipeline.redrive.selection import LetterState, Selection, WrongSelection


def test_every_condition_is_read_and_written_back() -> None:
    """O2: whatever page, API or command is given, the same selection comes out of its text again."""
    given = {
        "topic": "shop.order.created.dlq",
        "partition": "3",
        "first_offset": "10",
        "last_offset": "20",
        "fingerprint": "0123456789abcdef",
        "tenant": "café",
        "class": "validation_error",
        "definition": "order.created",
        "since": "2026-01-02T03:04:05Z",
        "until": "1767323105.5",
        "state": "redriven",
    }
    selection = Selection.parse(given)
    assert selection == Selection(
        topic="shop.order.created.dlq",
        partition=3,
        first_offset=10,
        last_offset=20,
        fingerprint="0123456789abcdef",
        tenant="café",
        error_class="validation_error",
        definition="order.created",
        since_at=1_767_323_045.0,
        until_at=1_767_323_105.5,
        state=LetterState.REDRIVEN,
    )
    assert Selection.parse(selection.as_text()) == selection


def test_a_single_record() -> None:
    """O2: one offset is the first and the last; what is empty is not there; only open letters are meant."""
    selection = Selection.parse({"topic": "t.dlq", "partition": "0", "offset": "7", "tenant": ""})
    assert (selection.first_offset, selection.last_offset) == (7, 7)
    assert selection.tenant is None
    assert selection.state is LetterState.OPEN
    assert Selection.parse({"state": "any"}).state is None
    assert Selection.parse(Selection.parse({"state": "any"}).as_text()).state is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"colour": "red"}, "colour: is nothing to select by"),
        ({"partition": "0"}, "partition: needs a topic"),
        ({"topic": "t", "offset": "1"}, "offset: needs a topic and a partition"),
        ({"topic": "t", "partition": "-1"}, "partition: '-1' is not a number"),
        ({"topic": "t", "partition": "0", "offset": "9" * 20}, "not a number of Kafka's"),
        ({"topic": "t", "partition": "²"}, "not a number of Kafka's"),
        ({"since": "yesterday"}, "since: 'yesterday' is neither RFC 3339"),
        ({"until": "99999999999999999999999"}, "until: "),
        ({"state": "lost"}, "state: 'lost' is not open, redriven"),
        ({"tenant": "x" * 257}, "tenant: has 257 characters"),
    ],
)
def test_what_means_nothing_is_refused(given: dict[str, str], says: str) -> None:
    """O2: a condition that nobody can read is an error that names it, never a selection of everything."""
    with pytest.raises(WrongSelection, match=says):
        Selection.parse(given)
