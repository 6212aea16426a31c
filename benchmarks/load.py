"""The load every benchmark moves: which records are staged, and where each of them has to arrive.

Owns the definitions, tenants, staged headers and values, and the CloudEvents framing. Knows nothing of
consumers, Faust, processes or clocks: the same arguments always give the same bytes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

PARTITIONS = 6
TENANTS = 1_000
TOPICS = tuple(f"bench.target-{number}" for number in range(5))

Headers = Sequence[tuple[str, bytes]]


class Target(NamedTuple):
    """What is constant for a definition: its topic and the CloudEvents headers that never change."""

    topic: str
    headers: tuple[tuple[str, bytes], ...]


class Framed(NamedTuple):
    """A record ready to be sent, but for its partition."""

    topic: str
    tenant: bytes
    headers: list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Staged:
    """A record of the staging topic: `number` counts from 0 and is also in the value."""

    number: int
    definition: bytes
    tenant: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


def _target(resource: str, event: str, topic: str) -> Target:
    return Target(
        topic,
        (
            ("content-type", b"application/json"),
            ("ce_specversion", b"1.0"),
            ("ce_type", f"bench.{resource}.{event}".encode()),
            ("ce_schemaversion", b"1.0.0"),
            ("ce_resourcetype", resource.encode()),
            ("ce_eventtype", event.encode()),
        ),
    )


TARGETS: dict[bytes, Target] = {
    f"account{number // 5}.changed{number % 5}".encode(): _target(
        f"account{number // 5}", f"changed{number % 5}", TOPICS[number % 5]
    )
    for number in range(20)
}


def staged_records(count: int, seed: int = 7) -> Iterator[Staged]:
    """`count` staged records: 300 bytes of JSON, eight headers; tenants and definitions drawn evenly."""
    draw = random.Random(seed)
    definitions = list(TARGETS)
    for number in range(count):
        tenant = f"tenant-{draw.randrange(TENANTS):05d}".encode()
        definition = draw.choice(definitions)
        value = {
            "number": number,
            "order": f"{draw.getrandbits(64):016x}",
            "amount": draw.randrange(1_000_000),
            "currency": draw.choice(("EUR", "USD", "CHF")),
            "customer": {
                "id": draw.randrange(1_000_000),
                "name": f"Customer {draw.randrange(10_000)}",
                "segment": draw.choice(("gold", "silver", "none")),
            },
            "note": f"{draw.getrandbits(256):064x}",
            "at": "2025-01-01T00:00:00Z",
        }
        headers = (
            ("stage-version", b"1"),
            ("stage-definition", definition),
            (
                "stage-id",
                f"0190{draw.getrandbits(16):04x}-{number % 65_536:04x}-7000-8000-{number:012x}".encode(),
            ),
            ("stage-time", f"2025-01-01T00:00:{number % 60:02d}.{number % 1_000_000:06d}Z".encode()),
            ("stage-source", b"/bench/orders"),
            ("stage-tenant", tenant),
            ("stage-subject", f"order-{draw.getrandbits(48):012x}".encode()),
            ("stage-catalog", b"5f2c9a7be01d4c33"),
        )
        yield Staged(number, definition, tenant, json.dumps(value).encode(), headers)


def frame(headers: Headers) -> Framed:
    """The ten CloudEvents headers that every event has, from the headers of a staged record (T2)."""
    staged = dict(headers)
    target = TARGETS[staged["stage-definition"]]
    tenant = staged["stage-tenant"]
    return Framed(
        target.topic,
        tenant,
        [
            ("ce_id", staged["stage-id"]),
            ("ce_source", staged["stage-source"]),
            ("ce_time", staged["stage-time"]),
            ("ce_partitionkey", tenant),
            *target.headers,
        ],
    )


def frame_in_full(headers: Headers) -> Framed:
    """As `frame`, with the two optional headers of an event that has a tenant and a subject: twelve (T2)."""
    staged = dict(headers)
    target = TARGETS[staged["stage-definition"]]
    tenant = staged["stage-tenant"]
    return Framed(
        target.topic,
        tenant,
        [
            ("ce_id", staged["stage-id"]),
            ("ce_source", staged["stage-source"]),
            ("ce_time", staged["stage-time"]),
            ("ce_partitionkey", tenant),
            ("ce_subject", staged["stage-subject"]),
            ("ce_tenantid", tenant),
            *target.headers,
        ],
    )
