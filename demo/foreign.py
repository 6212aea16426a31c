"""A producer that knows Kafka but not Stagepost: it writes staging records by hand, well and badly.

Owns: records of the open staging format, and the ways to get them wrong. Must not know: `stage()`.

python -m demo.foreign LEDGER SERVERS STAGING_TOPIC
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from aiokafka import AIOKafkaProducer

from demo.ledger import Entry, Ledger

__all__ = ["TENANT", "ForeignRecord", "records"]

TENANT: Final = "ZZ"
OVER_THE_CAP: Final = 1_010_000
"""Bytes of a payload that the staging topic takes, but `MAX_PAYLOAD_BYTES` (1,000,000) forbids."""

_VALIDATION = "validation_error"
_KEY = "flight.departed"
_BODY: Final = {
    "carrier": TENANT,
    "flight_number": 1,
    "tail_number": None,
    "origin": "EWR",
    "destination": "LAX",
    "distance_mi": 2454,
    "scheduled_departure": "2013-01-01T12:00:00Z",
    "scheduled_arrival": "2013-01-01T18:00:00Z",
    "departure": "2013-01-01T12:05:00Z",
    "departure_delay_min": 5,
}


class ForeignRecord(NamedTuple):
    """A staging record and what has to become of it."""

    entry: Entry
    value: bytes
    headers: dict[str, str]


def records() -> Iterator[ForeignRecord]:
    """Yield good records, records without a required header, wrong bodies, and one payload over the cap."""
    good = json.dumps(_BODY).encode()
    for number in range(5):
        yield _record(f"good-{number}", good)
    for missing in ("stage-version", "stage-definition", "stage-time", "stage-source"):
        yield _record(f"without-{missing}", good, without=missing)
    yield _record("not-json", b"departed at noon", wrong=True)
    yield _record("number-as-text", json.dumps(_BODY | {"flight_number": "one"}).encode(), wrong=True)
    yield _record("field-missing", json.dumps({"carrier": TENANT}).encode(), wrong=True)
    yield _record("field-unknown", json.dumps(_BODY | {"gate": "B42"}).encode(), wrong=True)
    yield _record("over-the-cap", good.ljust(OVER_THE_CAP), wrong=True)


def _record(name: str, value: bytes, *, without: str = "", wrong: bool = False) -> ForeignRecord:
    event_id = f"foreign/{name}"
    headers = {
        "stage-version": "1",
        "stage-definition": _KEY,
        "stage-id": event_id,
        "stage-time": "2013-01-01T12:05:00Z",
        "stage-source": "/demo/foreign",
        "stage-tenant": TENANT,
    }
    headers.pop(without, None)
    error_class = _VALIDATION if without or wrong else ""
    return ForeignRecord(
        Entry(event_id, headers.get("stage-definition", ""), TENANT, error_class), value, headers
    )


async def produce(ledger_path: Path, servers: str, topic: str) -> None:
    """Write every record down, then send it; returns when all are acknowledged."""
    producer = AIOKafkaProducer(
        bootstrap_servers=servers, acks="all", enable_idempotence=True, max_request_size=2 * OVER_THE_CAP
    )
    async with producer:
        with Ledger(ledger_path) as ledger:
            for entry, value, headers in records():
                ledger.note(entry)
                encoded = [(name, text.encode()) for name, text in headers.items()]
                await producer.send_and_wait(topic, value, key=TENANT.encode(), headers=encoded)


if __name__ == "__main__":
    asyncio.run(produce(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
