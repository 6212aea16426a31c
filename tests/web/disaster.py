"""A night gone wrong: ten thousand dead letters of a shop, in twelve groups, on five topics, of thirty tenants.

Owns: what is staged, and how many letters each group has. Must not know: pages, browsers.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from tests.kafka_client import OutRecord
from tests.worker.shop_records import staged

TENANTS = 30
LETTERS = 10_000
HOSTILE_ID = '"><script>document.title="owned"</script>'
HOSTILE_PAYLOADS = (
    b'{"x": "</pre><script>document.title=\'owned\'</script><img src=x onerror=alert(1)>"',
    b"\x1b]0;owned\x07\x1b[2J\x1b[31m {",
    "{\u202e desrever \u200b".encode(),
    b"\xff\xfe\x00 not utf-8 {",
    b"{" + b"x" * 900_000,
)


class Group(NamedTuple):
    """Failures of one kind: how many, of which definition, on which topic."""

    letters: int
    definition: str
    topic: str
    changes: dict[str, bytes]
    value: bytes
    without: str = ""


GROUPS = (
    Group(3_000, "payout.sent", "payout.sent", {"source": b"//bank/payouts"}, b'{"amount": "12.00"}'),
    Group(1_500, "order.paid", "order.paid", {}, b'{"cents": "many"}'),
    Group(1_200, "order.paid", "order.paid", {}, b"{"),
    Group(1_000, "order.paid", "order.paid", {}, b"[]"),
    Group(900, "order.created", "order.created", {}, b"{"),
    Group(700, "order.created", "order.created", {"time": b"yesterday"}, b"{}"),
    Group(500, "order.created", "order.created", {}, b"{}", "time"),
    Group(400, "payout.sent", "payout.sent", {"source": b"//nobody"}, b"{}"),
    Group(300, "order.created@2", "order.created.v2", {}, b"{"),
    Group(250, "order.created@2", "order.created.v2", {"subject": b"a\nb"}, b"{}"),
    Group(150, "trap.sprung", "trap.sprung", {}, b"{"),
    Group(100, "trap.sprung", "trap.sprung", {"id": b""}, b"{}"),
)
FIXABLE = GROUPS[0]
assert sum(group.letters for group in GROUPS) == LETTERS


def records() -> list[OutRecord]:
    """All staging records, in an order that mixes the groups; always the same."""
    found = list(_records())
    random.Random(7).shuffle(found)
    return found


def hostile() -> list[OutRecord]:
    """A few more, as somebody would stage them who wants to harm the reader."""
    return [
        staged(
            HOSTILE_ID if number == 0 else f"hostile-{number}",
            {"definition": b"trap.sprung", "tenant": b"<b>evil</b>"},
            value=payload,
            without="time",
            more=[("<script>alert(1)</script>", b"\x1b[31m<script>alert(2)</script>\xff")],
        )
        for number, payload in enumerate(HOSTILE_PAYLOADS)
    ]


def _records() -> Iterator[OutRecord]:
    for index, group in enumerate(GROUPS):
        for number in range(group.letters):
            tenant = f"tenant-{number % TENANTS:02}".encode()
            fields = {"definition": group.definition.encode(), "tenant": tenant, **group.changes}
            yield staged(f"g{index}-{number}", fields, value=group.value, without=group.without)
