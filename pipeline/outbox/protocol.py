"""What an outbox is, whatever it is made of: rows in order that wait to be shipped (S11).

Owns: the protocols. Must not know: RocksDB, which is one implementation, or any database, which may be another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from pipeline.outbox.errors import OutboxDamaged

__all__ = ["Outbox", "Stored", "Turn", "Waiting"]


class Stored(NamedTuple):
    """A row as it lies there: its sequence, when it was stored (seconds since 1970), its bytes."""

    sequence: int
    at: float
    data: bytes


class Waiting(NamedTuple):
    """What waits: rows, their bytes, when the oldest was stored (seconds since 1970, None without rows), how
    many rows were set aside, what was found damaged, and whether the disk has no room for more."""

    rows: int
    bytes: int
    oldest: float | None
    set_aside: int
    damage: OutboxDamaged | None
    full: bool


class Outbox(Protocol):
    """Rows that are durable and wait to be shipped, each under a sequence that grows and is never used again.

    `Stager.ship` reads them in order and deletes what the broker acknowledged. How rows come in is the
    implementation's own affair: in a service's database, within the service's own transaction.
    """

    async def read(self, after: int, limit: int) -> Sequence[Stored]:
        """Up to `limit` rows with a sequence above `after`, in order; none only where there are none."""
        ...

    async def delete(self, rows: Sequence[Stored]) -> None:
        """Forget rows: the broker acknowledged them. Durable at return, or they are shipped once more."""
        ...

    async def set_aside(self, row: Stored, reason: str) -> None:
        """Keep a row that can never be shipped out of the way, with the reason; `read` gives it no more."""
        ...


class Turn(Protocol):
    """Of several relays that could ship an outbox, one does at a time, so that its order holds."""

    def claim_relay(self, wake: Callable[[], None], loop: asyncio.AbstractEventLoop) -> bool:
        """Whether it is the caller's turn; `wake` is called on this loop when there are new rows."""
        ...

    def leave_relay(self, wake: Callable[[], None]) -> None:
        """The caller ships no more."""
        ...
