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
from typing import TypeAlias

from rocksdict import DBRecoveryMode, Options, Rdict, WriteBatch, WriteOptions

from pipeline.outbox.errors import OutboxDamaged, OutboxFull, OutboxUnavailable
from pipeline.outbox.protocol import Stored

__all__ = ["DATABASE", "RocksStore", "aside_of", "options", "scan", "stored_of"]

log = logging.getLogger(__name__)

_WRITE_BUFFER = 8 << 20
_RESERVE_BYTES = 2 * _WRITE_BUFFER
_STALLED = "Write stall"
_STALL_S = 2.0
"""How long a write waits for RocksDB to flush what came before: a few writes of 8 MiB."""
_STALL_PAUSE_S = 0.005
_RESERVE = "reserve"
DATABASE = "rows"
_ROW, _ASIDE = b"r", b"x"
_SEQUENCE_BYTES = 8
_TIME_BYTES = 8
_LENGTH_BYTES = 4
_Changes: TypeAlias = "Sequence[tuple[bytes, bytes | None]]"
"""Keys with their new values, or None to delete them: all or none."""
_FULL = ("No space left", "ENOSPC", "Disk quota", "EDQUOT", "File too large")


class RocksStore:
    """An outbox in one folder. Raises `OutboxUnavailable` and its kinds."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._database: Rdict | None = None
        self._next = 1
        self._counted = False
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

    def append(self, rows: Sequence[bytes]) -> list[int]:
        """Store rows in order, all or none, with one fsync. Returns their sequences; they are durable then.

        After a full disk every call first tries to open the files anew, so that staging goes on as soon as
        there is room.
        """
        size = sum(map(len, rows))
        if self.bytes + size > self._max_bytes:
            raise OutboxFull(
                str(self._folder),
                f"{self.bytes:,} of at most {self._max_bytes:,} bytes (STREAMING_OUTBOX_MAX_BYTES) wait",
            )
        at = int(time.time() * 1000).to_bytes(_TIME_BYTES, "big")
        sequences = list(range(self._next, self._next + len(rows)))
        self._write([(_key(_ROW, sequence), at + row) for sequence, row in zip(sequences, rows, strict=True)])
        self._next += len(rows)
        self.rows += len(rows)
        self.bytes += size
        return sequences

    def read(self, after: int, limit: int) -> list[Stored]:
        """Up to `limit` rows with a sequence above `after`, in order."""
        found: list[Stored] = []
        for sequence, value in self._scan(_ROW, after + 1):
            found.append(stored_of(sequence, value))
            if len(found) == limit:
                break
        return found

    def delete(self, rows: Sequence[Stored]) -> None:
        """Forget rows that were shipped."""
        # Not fsynced: a row that comes back after a crash is shipped twice with its id, never lost.
        self._write([(_key(_ROW, row.sequence), None) for row in rows], sync=False)
        self.rows -= len(rows)
        self.bytes -= sum(len(row.data) for row in rows)

    def set_aside(self, row: Stored, reason: str) -> None:
        """Move a row out of the way that can never be shipped; it is kept with the reason."""
        text = reason.encode()
        at = int(row.at * 1000).to_bytes(_TIME_BYTES, "big")
        aside = at + len(text).to_bytes(_LENGTH_BYTES, "big") + text + row.data
        self._write([(_key(_ROW, row.sequence), None), (_key(_ASIDE, row.sequence), aside)])
        self.rows -= 1
        self.bytes -= len(row.data)
        self.set_aside_count += 1

    def aside(self) -> Iterator[tuple[int, str, bytes]]:
        """The rows set aside: sequence, reason, bytes."""
        for sequence, value in self._scan(_ASIDE, 0):
            _, _, data, reason = aside_of(sequence, value)
            yield sequence, reason, data

    def close(self) -> None:
        """Close the files. Idempotent."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _open(self) -> None:
        path = self._folder / DATABASE
        try:
            self._database = Rdict(str(path), options())
        except Exception as error:
            if _is_full(error):
                self._open_by_reserve(path)
            elif "lock" in str(error).lower():
                raise OutboxUnavailable(
                    str(self._folder), f"another process has it open ({error})"
                ) from error
            else:
                self._keep_damaged(path, error)
        if not self._counted:
            self._count()
        self._fill_reserve()

    def _open_by_reserve(self, path: Path) -> None:
        (self._folder / _RESERVE).unlink(missing_ok=True)
        try:
            self._database = Rdict(str(path), options())
        except Exception as error:
            raise OutboxFull(str(self._folder), f"the disk is full, free some space ({error})") from error

    def _keep_damaged(self, path: Path, error: Exception) -> None:
        kept = path.with_name(f"{DATABASE}.damaged-{int(time.time())}")
        path.rename(kept)
        log.error("outbox files are damaged, kept in %s: %s", kept, error)
        self._database = Rdict(str(path), options())
        self._counted = False
        self.damage = OutboxDamaged(str(self._folder), str(kept), str(error))

    def _count(self) -> None:
        self.rows = self.bytes = 0
        last = 0
        for sequence, value in self._scan(_ROW, 0):
            self.rows += 1
            self.bytes += len(value) - _TIME_BYTES
            last = sequence
        aside = [sequence for sequence, _, _ in self.aside()]
        self.set_aside_count = len(aside)
        self._next = max(self._next, last + 1, *(sequence + 1 for sequence in aside[-1:]))
        self._counted = True

    def _write(self, changes: _Changes, *, sync: bool = True) -> None:
        database = self._database or self._reopen()
        options = WriteOptions()
        options.sync = sync
        options.no_slowdown = True  # a flush that finds no room would hold the write, for ever if it stays so
        try:
            self._write_unless_stalled(database, changes, options)
        except Exception as error:
            self._database = None
            self._counted = False
            with contextlib.suppress(Exception):  # it cannot flush either; the log has every fsynced row
                database.close()
            if _is_full(error):
                raise OutboxFull(str(self._folder), f"the disk is full, free some space ({error})") from error
            raise OutboxUnavailable(str(self._folder), str(error)) from error

    def _write_unless_stalled(self, database: Rdict, changes: _Changes, options: WriteOptions) -> None:
        """Write as soon as RocksDB has flushed what came before; not where it finds no room for that."""
        until = time.monotonic() + _STALL_S
        while True:
            try:
                database.write(_batch(changes), options)
            except Exception as error:
                if _STALLED not in str(error):
                    raise
                if not self._has_room_to_flush():
                    raise OSError(errno.ENOSPC, f"{_FULL[0]}: {error}") from error
                if time.monotonic() >= until:
                    raise
                time.sleep(_STALL_PAUSE_S)
            else:
                return

    def _has_room_to_flush(self) -> bool:
        disk = os.statvfs(self._folder)
        return disk.f_bavail * disk.f_frsize >= _WRITE_BUFFER

    def _reopen(self) -> Rdict:
        """After a failed write: the old handle is of no use, and a new one needs the reserve's room."""
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
        return scan(self._database or self._reopen(), prefix, start)


def _key(prefix: bytes, sequence: int) -> bytes:
    return prefix + sequence.to_bytes(_SEQUENCE_BYTES, "big")


def scan(database: Rdict, prefix: bytes, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Sequences and values under a prefix, in order, from a sequence on."""
    iterator = database.iter()
    iterator.seek(_key(prefix, start))
    while iterator.valid():
        key = iterator.key()
        if not key.startswith(prefix):
            return
        yield int.from_bytes(key[1:], "big"), iterator.value()
        iterator.next()


def stored_of(sequence: int, value: bytes) -> Stored:
    """A waiting row from its value."""
    return Stored(sequence, int.from_bytes(value[:_TIME_BYTES], "big") / 1000, value[_TIME_BYTES:])


def aside_of(sequence: int, value: bytes) -> tuple[int, float, bytes, str]:
    """A row that was set aside from its value: sequence, when it was stored, bytes, reason."""
    start = _TIME_BYTES + _LENGTH_BYTES
    end = start + int.from_bytes(value[_TIME_BYTES:start], "big")
    at = int.from_bytes(value[:_TIME_BYTES], "big") / 1000
    return sequence, at, value[end:], value[start:end].decode(errors="replace")


def _batch(changes: _Changes) -> WriteBatch:
    batch = WriteBatch(raw_mode=True)
    for key, value in changes:
        if value is None:
            batch.delete(key)
        else:
            batch.put(key, value)
    return batch


def options() -> Options:
    """How the files are opened."""
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    options.set_write_buffer_size(_WRITE_BUFFER)
    options.set_max_write_buffer_number(2)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(1 << 20)
    return options


def _is_full(error: Exception) -> bool:
    return any(sign in str(error) for sign in _FULL)
