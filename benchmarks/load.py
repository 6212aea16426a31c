"""The load every benchmark moves: flights as events of `catalog.examples.flights`, about 300 bytes of JSON each.

Owns: what event number N is, and its staging record. Pure: the same number is always the same bytes. Must not
know: clients, processes, clocks.

Every event has a tenant and no subject, so on its target it has `content-type` and ten CloudEvents headers.
"""

from __future__ import annotations

import json
import random
from functools import cache
from typing import NamedTuple

from catalog.examples.flights import DEFINITIONS
from catalog.registry import Catalog

__all__ = [
    "CALLERS",
    "PARTITIONS",
    "SOURCE",
    "TENANTS",
    "Event",
    "catalog",
    "event",
    "id_of",
    "number_of",
    "staging_headers",
    "tenant_of",
]

PARTITIONS = 6
CALLERS = 64
TENANTS = 1_024
"""A multiple of CALLERS: where caller N stages the numbers N, N + 64, ... each tenant has one caller, and an order."""
SOURCE = "/bench"
_SHAPES = 256
_KEYS = ("flight.departed", "flight.arrived") * 9 + ("flight.cancelled", "flight.diverted")
_TIME = b"2013-01-01T10:17:00.000000Z"


class Event(NamedTuple):
    """One event: its number, definition, tenant, id and payload."""

    number: int
    definition: str
    tenant: str
    id: str
    payload: bytes


def event(number: int) -> Event:
    """Event number `number`; every id is unique, every payload is what its definition says."""
    key, body = _shapes()[number % _SHAPES]
    return Event(number, key, tenant_of(number), id_of(number), body % (number % 9_999 + 1))


def tenant_of(number: int, tenants: int = TENANTS) -> str:
    """Whose the event is."""
    return f"carrier-{number % tenants:06d}"


def id_of(number: int) -> str:
    """The event's id, as long as a UUID."""
    return f"01942a7e-5a00-7000-8000-{number:012d}"


def number_of(id_: bytes) -> int:
    """The number of the event with this id."""
    return int(id_[-12:])


def staging_headers(one: Event, fingerprint: str) -> list[tuple[str, bytes]]:
    """The headers of an event's staging record (S10), as our own stager writes them."""
    return [
        ("stage-version", b"1"),
        ("stage-source", SOURCE.encode()),
        ("stage-catalog", fingerprint.encode()),
        ("stage-definition", one.definition.encode()),
        ("stage-id", one.id.encode()),
        ("stage-time", _TIME),
        ("stage-tenant", one.tenant.encode()),
    ]


@cache
def catalog(namespace: str) -> Catalog:
    """The catalog of flights in a namespace."""
    return Catalog(DEFINITIONS, namespace=namespace)


@cache
def _shapes() -> list[tuple[str, bytes]]:
    draw = random.Random(7)
    return [_shape(_KEYS[shape % len(_KEYS)], draw) for shape in range(_SHAPES)]


def _shape(key: str, draw: random.Random) -> tuple[str, bytes]:
    """A definition, and a payload with a place for the number of the flight."""

    def moment() -> str:
        day = f"2013-{draw.randint(1, 12):02}-{draw.randint(1, 28):02}"
        return f"{day}T{draw.randint(0, 23):02}:{draw.randint(0, 59):02}:00Z"

    flight = {
        "carrier": draw.choice(("UA", "B6", "EV", "DL", "AA")),
        "flight_number": "NUMBER",
        "tail_number": f"N{draw.randint(10_000, 99_999)}",
        "origin": draw.choice(("EWR", "JFK", "LGA")),
        "destination": draw.choice(("IAH", "MIA", "ATL", "ORD", "LAX")),
        "distance_mi": draw.randint(80, 4_983),
        "scheduled_departure": moment(),
        "scheduled_arrival": moment(),
    }
    more: dict[str, dict[str, object]] = {
        "flight.departed": {"departure": moment(), "departure_delay_min": draw.randint(-20, 300)},
        "flight.arrived": {
            "arrival": moment(),
            "arrival_delay_min": draw.randint(-40, 300),
            "air_time_min": draw.randint(20, 600),
        },
        "flight.cancelled": {},
        "flight.diverted": {"late_arrival": None},
    }
    return key, json.dumps(flight | more[key]).replace('"NUMBER"', "%d").encode()
