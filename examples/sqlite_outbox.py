"""An outbox in a service's own SQLite database: an event commits or vanishes with the order that it is about (S11).

`place_order` is the service; `SqliteOutbox` is what `Stager.ship` reads. Any database with transactions serves alike.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from pipeline import Stager, Stored

__all__ = ["SqliteOutbox", "place_order"]

SCHEMA = """
create table if not exists orders (number integer primary key, customer text not null);
create table if not exists outbox (sequence integer primary key autoincrement, at real, row blob, reason text);
"""


def connect(path: Path) -> sqlite3.Connection:
    """A connection to the service's database; its tables are made where they are missing."""
    connection = sqlite3.connect(path)
    connection.executescript(SCHEMA)
    return connection


def place_order(connection: sqlite3.Connection, stager: Stager, number: int, customer: str) -> None:
    """Both the order and its event, or neither. Does not wait for Kafka."""
    prepared = stager.prepare("order.placed", {"order": number}, tenant=customer)
    with connection:  # one transaction
        connection.execute("insert into outbox (at, row) values (?, ?)", (time.time(), prepared.bytes))
        connection.execute("insert into orders values (?, ?)", (number, customer))


class SqliteOutbox:
    """The table `outbox` as an `Outbox`. AUTOINCREMENT never uses a sequence twice."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self, after: int, limit: int) -> Sequence[Stored]:
        """Up to `limit` rows above a sequence that have not been set aside, in order."""
        found = await asyncio.to_thread(
            self._run,
            "select sequence, at, row from outbox where sequence > ? and reason is null order by sequence limit ?",
            [(after, limit)],
        )
        return [Stored(*row) for row in found]

    async def delete(self, rows: Sequence[Stored]) -> None:
        """Forget rows that were shipped."""
        sequences = [(row.sequence,) for row in rows]
        await asyncio.to_thread(self._run, "delete from outbox where sequence = ?", sequences)

    async def set_aside(self, row: Stored, reason: str) -> None:
        """Keep a row that can never be shipped, with the reason."""
        change = "update outbox set reason = ? where sequence = ?"
        await asyncio.to_thread(self._run, change, [(reason, row.sequence)])

    def _run(self, statement: str, arguments: Sequence[tuple[object, ...]]) -> list[tuple[int, float, bytes]]:
        with closing(connect(self._path)) as connection, connection:
            return [row for each in arguments for row in connection.execute(statement, each)]
