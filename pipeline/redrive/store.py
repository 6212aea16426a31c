"""The index of dead letters on this worker's disk: written from `<ns>.dlq.index` and `<ns>.dlq.state`.

Owns: the tables, taking in records with the offsets they were read at, beginning anew where the files are of no
use. Must not know: Kafka, what is asked of the index (`queries.py`). Every call blocks.

It is a copy: whatever is wrong with it, it is thrown away and read again. SQLite and not RocksDB, because a
chunk of records is parsed and stored by one statement that needs no Python, so the event loop of the worker is
not held up; and because every combination of conditions is answered by a merge that RocksDB would leave to
Python, row by row (benchmarks/LOG.md has the figures).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.redrive.schema import (
    ENDINGS,
    FORGET,
    INCOMING,
    KNOWN_TOPICS,
    LETTERS,
    TABLES,
    VERSION,
    Taking,
)

__all__ = ["Store", "topic_number"]

log = logging.getLogger(__name__)

_CACHE_KIB = 8_192  # a larger one makes nothing faster that was measured (benchmarks/LOG.md)
_TRICKLE, _FEW, _GAP_S = 500, 25, 0.003
"""Up to this many records are taken in a few at a time, with a gap between: a quarter of a second's redriven letters in
one go keep the processor for 4 ms, and live events from it. More are a backlog, which is to be read soon."""


def topic_number(name: str) -> int:
    """A number for a topic that every worker computes alike, so that a cursor of one means the same to another."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest())


class Store:
    """The index in one file. Safe from any thread: a call waits for the one under way, `close` too, for SQLite does
    not survive being closed under a statement."""

    def __init__(self, folder: Path, namespace: str) -> None:
        """Open the index of a namespace, or begin a new one. Raises `OSError` where the folder cannot be used."""
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"dlq-index-{namespace}.sqlite"
        self._lock = threading.Lock()
        self._connection = self._open()

    def next_offsets(self) -> dict[tuple[str, int], int]:
        """By topic and partition, the offset behind what was taken in."""
        with self._lock:
            rows = self._connection.execute("SELECT topic, partition, next FROM read")
            return {(topic, partition): offset for topic, partition, offset in rows}

    def take_in(
        self,
        letters: Sequence[bytes],
        endings: Sequence[bytes],
        read_up_to: Mapping[tuple[str, int], int],
    ) -> int:
        """Store index and state records, by their values, all or none; and the offsets behind them.

        Out: how many of them could not be read, and were left out. A letter that is known already stays as it is.
        """
        spoilt = 0
        with self._lock, self._transaction():
            for values, taking in ((letters, LETTERS), (endings, ENDINGS)):
                size = _FEW if len(values) <= _TRICKLE else len(values)
                for at in range(0, len(values), size):
                    if at:
                        time.sleep(_GAP_S)
                    spoilt += self._take_in(values[at : at + size], taking)
            self._connection.executemany(
                "INSERT OR REPLACE INTO read VALUES (?, ?, ?)",
                [(topic, partition, offset) for (topic, partition), offset in read_up_to.items()],
            )
        return spoilt

    def topics(self) -> list[str]:
        """The topics of which something is known."""
        with self._lock:
            return [name for (name,) in self._connection.execute(KNOWN_TOPICS)]

    def forget(self, firsts: Mapping[tuple[str, int], int], limit: int) -> int:
        """Forget the letters that lie before the first offset of their topic and partition, and what became of them,
        at most `limit` records, the oldest first. Out: how many; fewer than `limit` where nothing is left of them."""
        left = limit
        with self._lock, self._transaction():
            for (topic, partition), first in firsts.items():
                for statement in FORGET:
                    left -= self._connection.execute(
                        statement,
                        {"topic": topic_number(topic), "partition": partition, "first": first, "limit": left},
                    ).rowcount
                if not left:
                    break
        return limit - left

    def begin_anew(self) -> None:
        """Throw everything away: what was taken in is not what is on the topics now."""
        with self._lock:
            self._connection.close()
            self._delete()
            self._connection = self._open()

    def close(self) -> None:
        """Close the file. Idempotent."""
        with self._lock:
            self._connection.close()

    def _take_in(self, values: Sequence[bytes], taking: Taking) -> int:
        execute = self._connection.execute
        spoilt = self._parse(values, taking)
        for (name,) in execute(f"SELECT DISTINCT name FROM {taking.table}").fetchall():
            execute("INSERT OR IGNORE INTO topic VALUES (?, ?)", (topic_number(name), name))
        for statement in taking.store:
            execute(statement)
        return spoilt

    def _parse(self, values: Sequence[bytes], taking: Taking) -> int:
        execute = self._connection.execute
        execute("SAVEPOINT part")
        try:  # in memory: it is the records that fail here, never the disk
            execute(taking.parse, (f"[{b','.join(values).decode()}]",))
            is_whole = execute(taking.check).fetchone() is None
        except (sqlite3.Error, UnicodeDecodeError):
            is_whole = False
        if not is_whole:
            execute("ROLLBACK TO part")
        execute("RELEASE part")
        if is_whole:
            return 0
        if len(values) == 1:
            return 1
        half = len(values) // 2
        return self._parse(values[:half], taking) + self._parse(values[half:], taking)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _open(self) -> sqlite3.Connection:
        with contextlib.suppress(sqlite3.Error):
            return self._connect()
        log.warning("index.damaged path=%s -- it is read anew from its topic", self.path)
        self._delete()
        return self._connect()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            _prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _delete(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        connection.executescript(f"BEGIN;{TABLES}PRAGMA user_version = {VERSION};COMMIT;")
    elif version != VERSION:
        raise sqlite3.DatabaseError(f"written by another version: {version}")
    connection.executescript(INCOMING)
