"""Rows on RocksDB, one folder: appended with fsync, read in order, deleted when they have been shipped.

Owns: the files, the order by sequence, what happens when the disk is full or the files are damaged.
Must not know: what a row means, threads, who ships. Every call blocks; one thread at a time may call.

Facts behind the code, each tried on rocksdict 0.3.29: after ENOSPC a handle never writes again, and opening
anew needs room, so a reserve file is kept that can be given up; the default recovery of the write-ahead log
drops fsynced rows silently after damage in the middle, "tolerate corrupted tail" refuses instead.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rocksdict import Rdict, WriteOptions

from pipeline.outbox.errors import NoRoomForOutbox, OutboxDamaged, OutboxFull, OutboxUnavailable
from pipeline.outbox.files import (
    ASIDE,
    DATABASE,
    NO_SPACE,
    ROW,
    TIME_BYTES,
    WRITE_BUFFER,
    Changes,
    aside_of,
    aside_value,
    batch,
    is_full,
    key,
    options,
    row_stamp,
    scan,
    stored_of,
)
from pipeline.outbox.protocol import Stored

__all__ = ["RocksStore"]

log = logging.getLogger(__name__)

_RESERVE_BYTES = 2 * WRITE_BUFFER
_STALLED = "Write stall"
_STALL_S = 2.0
"""How long a write waits for RocksDB to flush what came before: a few writes of 8 MiB."""
_STALL_PAUSE_S = 0.005
_RESERVE = "reserve"


class RocksStore:
    """An outbox in one folder. Raises `OutboxUnavailable` and its kinds."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._database: Rdict | None = None
        self._broken: Rdict | None = None
        self._next = 1
        self._counted = False
        self._full = False
        """Whether the last attempt to write found no room."""
        self.damage: OutboxDamaged | None = None
        """What was found damaged when the files were opened; None where nothing was."""
        self.rows = 0
        """Rows waiting."""
        self.bytes = 0
        """Bytes of the rows waiting."""
        self.set_aside_count = 0
        """Rows that can never be shipped and were set aside."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._open()

    @property
    def last_sequence(self) -> int:
        """The highest sequence given so far, 0 before the first."""
        return self._next - 1

    def append(self, rows: Sequence[bytes]) -> range:
        """Store rows in order, all or none, with one fsync. Returns their sequences; they are durable then.

        Once the disk was full, a call is refused at once until there is room again, also for the reserve, which is
        for shipping what is there; the files are then opened anew.
        """
        size = sum(map(len, rows))
        if self.bytes + size > self._max_bytes:
            raise OutboxFull(
                str(self._folder),
                f"{self.bytes:,} of at most {self._max_bytes:,} bytes (STREAMING_OUTBOX_MAX_BYTES) wait",
            )
        if self._full and not self._has_room(size):
            raise OutboxFull(str(self._folder), "the disk is still full, free some space")
        stamp = row_stamp(time.time())
        sequences = range(self._next, self._next + len(rows))
        self._write(
            [(key(ROW, sequence), stamp + row) for sequence, row in zip(sequences, rows, strict=True)]
        )
        self._full = False
        self._next += len(rows)
        self.rows += len(rows)
        self.bytes += size
        return sequences

    def read(self, after: int, limit: int) -> list[Stored]:
        """Up to `limit` rows with a sequence above `after`, in order."""
        found: list[Stored] = []
        for sequence, value in self._scan(ROW, after + 1):
            found.append(stored_of(sequence, value))
            if len(found) == limit:
                break
        return found

    def delete(self, rows: Sequence[Stored]) -> None:
        """Forget rows that were shipped."""
        # Not fsynced: a row that comes back after a crash is shipped twice with its id, never lost.
        self._write([(key(ROW, row.sequence), None) for row in rows], sync=False)
        self.rows -= len(rows)
        self.bytes -= sum(len(row.data) for row in rows)

    def set_aside(self, row: Stored, reason: str) -> None:
        """Move a row out of the way that can never be shipped; it is kept with the reason."""
        self._write([(key(ROW, row.sequence), None), (key(ASIDE, row.sequence), aside_value(row, reason))])
        self.rows -= 1
        self.bytes -= len(row.data)
        self.set_aside_count += 1

    def aside(self) -> Iterator[tuple[int, str, bytes]]:
        """The rows set aside: sequence, reason, bytes."""
        for sequence, value in self._scan(ASIDE, 0):
            _, _, data, reason = aside_of(sequence, value)
            yield sequence, reason, data

    def close(self) -> None:
        """Close the files. Idempotent."""
        for database in (self._database, self._broken):
            if database is not None:
                # On a full disk it cannot flush, and need not: the log has every fsynced row.
                with contextlib.suppress(Exception):
                    database.close()
        self._database = self._broken = None

    def _open(self) -> None:
        path = self._folder / DATABASE
        try:
            self._database = Rdict(str(path), options())
        except Exception as error:
            if is_full(error):
                self._open_by_reserve(path)
            elif "lock" in str(error).lower():
                raise OutboxUnavailable(
                    str(self._folder), f"another process has it open ({error})"
                ) from error
            else:
                self._keep_damaged(path, error)
        damage = "" if self._counted else self._count_unless_damaged()
        if damage:
            self.close()
            self._keep_damaged(path, OSError(damage))
            self._count()
        self._fill_reserve()

    def _open_by_reserve(self, path: Path) -> None:
        (self._folder / _RESERVE).unlink(missing_ok=True)
        try:
            self._database = Rdict(str(path), options())
        except Exception as error:
            if _never_held_a_row(path):
                raise NoRoomForOutbox(str(self._folder), error) from error
            raise OutboxFull(str(self._folder), f"the disk is full, free some space ({error})") from error

    def _keep_damaged(self, path: Path, error: Exception) -> None:
        kept = path.with_name(f"{DATABASE}.damaged-{int(time.time())}")
        path.rename(kept)
        log.error("outbox.damaged kept_in=%s error=%r", kept, error)
        self._database = Rdict(str(path), options())
        self._counted = False
        self._full = False
        """Whether the last attempt to write found no room."""
        self.damage = OutboxDamaged(str(self._folder), str(kept), str(error))

    def _count_unless_damaged(self) -> str:
        """What is wrong; empty where nothing is. Not as an exception: it would hold an iterator, and that the files."""
        try:
            self._count()
        except OutboxUnavailable as error:
            return str(error)
        return ""

    def _count(self) -> None:
        self.rows = self.bytes = 0
        last = 0
        for sequence, value in self._scan(ROW, 0):
            self.rows += 1
            self.bytes += len(value) - TIME_BYTES
            last = sequence
        aside = [sequence for sequence, _, _ in self.aside()]
        self.set_aside_count = len(aside)
        self._next = max(self._next, last + 1, *(sequence + 1 for sequence in aside[-1:]))
        self._counted = True

    def _write(self, changes: Changes, *, sync: bool = True) -> None:
        database = self._database or self._reopen()
        options = WriteOptions()
        options.sync = sync
        options.no_slowdown = True  # a flush that finds no room would hold the write, for ever if it stays so
        try:
            self._write_unless_stalled(database, changes, options)
        except Exception as error:
            self._database, self._broken = None, database
            self._counted = False
            if is_full(error):
                self._full = True
                raise OutboxFull(str(self._folder), f"the disk is full, free some space ({error})") from error
            raise OutboxUnavailable(str(self._folder), str(error)) from error

    def _write_unless_stalled(self, database: Rdict, changes: Changes, options: WriteOptions) -> None:
        """Write as soon as RocksDB has flushed what came before; not where it finds no room for that."""
        until = time.monotonic() + _STALL_S
        while True:
            try:
                database.write(batch(changes), options)
            except Exception as error:
                if _STALLED not in str(error):
                    raise
                if not self._has_room_to_flush():
                    raise OSError(errno.ENOSPC, f"{NO_SPACE}: {error}") from error
                if time.monotonic() >= until:
                    raise
                time.sleep(_STALL_PAUSE_S)
            else:
                return

    def _has_room_to_flush(self) -> bool:
        return self._free() >= WRITE_BUFFER

    def _has_room(self, size: int) -> bool:
        reserve = 0 if (self._folder / _RESERVE).exists() else _RESERVE_BYTES
        return self._free() >= size + WRITE_BUFFER + reserve

    def _free(self) -> int:
        disk = os.statvfs(self._folder)
        return disk.f_bavail * disk.f_frsize

    def _reopen(self) -> Rdict:
        """After a failed write: the old handle is of no use, and a new one needs the reserve's room.

        Only now is the old one closed, for that takes RocksDB a second, and the caller of the write hears at once.
        """
        self.close()
        self._open()
        assert self._database is not None
        return self._database

    def _fill_reserve(self) -> None:
        reserve = self._folder / _RESERVE
        if reserve.exists() and reserve.stat().st_size == _RESERVE_BYTES:
            return
        try:
            with reserve.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, _RESERVE_BYTES)
        except OSError:
            with contextlib.suppress(OSError):
                reserve.unlink(missing_ok=True)

    def _scan(self, prefix: bytes, start: int) -> Iterator[tuple[int, bytes]]:
        database = self._database or self._reopen()
        try:
            yield from scan(database, prefix, start)
        except Exception as error:
            raise OutboxUnavailable(str(self._folder), f"its files are damaged ({error})") from error


def _never_held_a_row(path: Path) -> bool:
    """Whether the files of a database are none, or those of one that was never completely made: rows go to a log
    first, and from there into a table."""
    return not any(path.glob("*.sst")) and not any(log.stat().st_size for log in path.glob("*.log"))
