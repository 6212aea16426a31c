"""Rows on RocksDB, one folder: appended with fsync, read in order, deleted when they have been shipped.

Owns: the files, the order by sequence, what happens when the disk is full or the files are damaged.
Must not know: what a row means, threads, who ships. Every call blocks; one thread at a time may call.

Facts behind the code, each tried on rocksdict 0.3.29: after ENOSPC a handle never writes again, and opening anew needs
room, so a reserve is kept that can be given up; where others have taken that, the files are opened to read only: what
waits is shipped, and its deletion written once there is room. The default recovery of the write-ahead log drops fsynced
rows silently after damage in the middle, "tolerate corrupted tail" refuses instead.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
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
    Changes,
    aside_of,
    aside_value,
    batch,
    is_damage,
    is_full,
    key,
    never_held_a_row,
    open_to_read,
    options,
    row_stamp,
    scan,
    stored_of,
)
from pipeline.outbox.protocol import Stored
from pipeline.outbox.room import Room

__all__ = ["RocksStore"]

log = logging.getLogger(__name__)

_STALLED = "Write stall"
_STALL_S = 2.0
"""How long a write waits for RocksDB to flush what came before: a few writes of 8 MiB."""
_STALL_PAUSE_S = 0.005
_DAMAGED = f"{DATABASE}.damaged-"


class RocksStore:
    """An outbox in one folder. Raises `OutboxUnavailable` and its kinds."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._database: Rdict | None = None
        self._broken: Rdict | None = None
        self.room = Room(folder)
        self._reads_only = False
        """Whether the files are open to read only, for there is no room for more."""
        self._later: dict[bytes, bytes | None] = {}
        """What is to be written once there is room: rows that were shipped, or set aside, meanwhile."""
        self._next = 1
        self._counted = self._was_counted = False
        self.full = False
        """Whether the last attempt to write found no room; there may be some by now."""
        self.damage: OutboxDamaged | None = None
        """What was found damaged when the files were opened, now or once, and still lies there; None: nothing."""
        self.rows = self.bytes = 0
        """Rows waiting, and their bytes."""
        self.set_aside_count = 0
        """Rows that can never be shipped and were set aside."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for kept in sorted(folder.glob(f"{_DAMAGED}*")):
                self.damage = OutboxDamaged(str(folder), str(kept), "found so at an earlier start")
        except OSError as error:
            raise OutboxUnavailable(str(folder), f"its folder cannot be used ({error})") from error
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
            most = f"{self._max_bytes:,} bytes (STREAMING_OUTBOX_MAX_BYTES)"
            raise OutboxFull(str(self._folder), f"{self.bytes:,} of at most {most} wait")
        if self.full and not self.room.has(size):
            raise OutboxFull(str(self._folder), "the disk is still full, free some space")
        stamp = row_stamp(time.time())
        sequences = range(self._next, self._next + len(rows))
        self._write(
            [(key(ROW, sequence), stamp + row) for sequence, row in zip(sequences, rows, strict=True)]
        )
        self.full = False
        self._next += len(rows)
        self.rows += len(rows)
        self.bytes += size
        return sequences

    def read(self, after: int, limit: int, limit_bytes: float = math.inf) -> list[Stored]:
        """Up to `limit` rows with a sequence above `after`, in order; fewer, but one, beyond `limit_bytes`."""
        found: list[Stored] = []
        for sequence, value in self._scan(ROW, after + 1):
            found.append(stored_of(sequence, value))
            limit_bytes -= len(value)
            if len(found) == limit or limit_bytes <= 0:
                return found
        return found

    def delete(self, rows: Sequence[Stored]) -> None:
        """Forget rows that were shipped."""
        # Not fsynced: a row that comes back after a crash is shipped twice with its id, never lost.
        self._write([(key(ROW, row.sequence), None) for row in rows], sync=False, or_later=True)
        self.rows -= len(rows)
        self.bytes -= sum(len(row.data) for row in rows)

    def set_aside(self, row: Stored, reason: str) -> None:
        """Move a row out of the way that can never be shipped; it is kept with the reason."""
        changes = [(key(ROW, row.sequence), None), (key(ASIDE, row.sequence), aside_value(row, reason))]
        self._write(changes, or_later=True)
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
        if self._later:
            with contextlib.suppress(OutboxUnavailable):
                self._write([], or_later=True)
        self._close()

    def _close(self) -> None:
        for database in (self._database, self._broken):
            if database is not None:
                # On a full disk it cannot flush, and need not: the log has every fsynced row.
                with contextlib.suppress(Exception):
                    database.close()
        self._database = self._broken = None

    def _open(self) -> None:
        path = self._folder / DATABASE
        self._reads_only = False
        try:
            self._database = Rdict(str(path), options())
        except Exception as error:
            if is_full(error):
                self._open_by_reserve(path)
            elif is_damage(error):
                self._keep_damaged(path, error)
            else:
                held = (
                    "another process has it open" if "lock" in str(error).lower() else "it cannot be opened"
                )
                raise OutboxUnavailable(str(self._folder), f"{held} ({error})") from error
        damage = None if self._counted else self._count_unless_damaged()
        if damage is not None:
            self._close()
            self._keep_damaged(path, damage)
            self._count()
        self.room.make_reserve()

    def _open_by_reserve(self, path: Path) -> None:
        self.room.give_up_reserve()
        try:
            self._database = Rdict(str(path), options())
        except Exception as error:
            if never_held_a_row(path):
                raise NoRoomForOutbox(str(self._folder), error) from error
            full = OutboxFull(str(self._folder), f"the disk is full, free some space ({error})")
            try:
                self._database = open_to_read(path)
            except Exception as unreadable:
                raise full from unreadable
            self._reads_only = self.full = True
            log.warning(
                "outbox.reads_only error=%r -- what waits is shipped, nothing more is taken", str(full)
            )

    def _keep_damaged(self, path: Path, error: Exception) -> None:
        kept = path.with_name(f"{_DAMAGED}{int(time.time())}")
        try:
            path.rename(kept)
            log.error("outbox.damaged kept_in=%s error=%r", kept, error)
            self.damage = OutboxDamaged(str(self._folder), str(kept), str(error))
            self._counted = self.full = self._reads_only = False
            self._later.clear()
            self._database = Rdict(str(path), options())
        except Exception as other:
            kind = OutboxFull if is_full(other) else OutboxUnavailable
            reason = f"its files are damaged ({error}), and new ones cannot be made ({other})"
            raise kind(str(self._folder), reason) from other

    def _count_unless_damaged(self) -> Exception | None:
        """What is wrong with the files. Not as it was raised: that would hold an iterator, and it the files."""
        try:
            self._count()
        except OutboxUnavailable as error:
            if not is_damage(error.__cause__):
                raise
            return OSError(str(error))
        return None

    def _count(self) -> None:
        self.rows = self.bytes = 0
        last = 0
        for sequence, value in self._scan(ROW, 0):
            if self._was_counted and sequence >= self._next:  # written, not synced, and told to be refused
                self._later[key(ROW, sequence)] = None
                continue
            self.rows += 1
            self.bytes += len(value) - TIME_BYTES
            last = sequence
        aside = [sequence for sequence, _, _ in self.aside()]
        self.set_aside_count = len(aside) + sum(name.startswith(ASIDE) for name in self._later)
        self._next = max(self._next, last + 1, *(sequence + 1 for sequence in aside[-1:]))
        self._counted = self._was_counted = True

    def _write(self, changes: Changes, *, sync: bool = True, or_later: bool = False) -> None:
        """All or nothing, with what was left for later; `or_later`: where there is no room, these are left, too."""
        if self._reads_only and self.room.has(0):
            self._close()
        database = self._database or self._reopen()
        if self._reads_only:
            if not or_later:
                raise OutboxFull(str(self._folder), "the disk is still full, free some space")
            self._later.update(changes)
            return
        options = WriteOptions()
        options.sync = sync
        options.no_slowdown = True  # a flush that finds no room would hold the write, for ever if it stays so
        try:
            self._write_unless_stalled(database, [*self._later.items(), *changes], options)
        except Exception as error:
            self._database, self._broken = None, database
            self._counted = False
            if is_full(error):
                self.full = True
                raise OutboxFull(str(self._folder), f"the disk is full, free some space ({error})") from error
            raise OutboxUnavailable(str(self._folder), str(error)) from error
        self._later.clear()

    def _write_unless_stalled(self, database: Rdict, changes: Changes, options: WriteOptions) -> None:
        """Write as soon as RocksDB has flushed what came before; not where it finds no room for that."""
        until = time.monotonic() + _STALL_S
        while True:
            try:
                database.write(batch(changes), options)
            except Exception as error:
                if _STALLED not in str(error):
                    raise
                if not self.room.has_to_flush():
                    raise OSError(errno.ENOSPC, f"{NO_SPACE}: {error}") from error
                if time.monotonic() >= until:
                    raise
                time.sleep(_STALL_PAUSE_S)
            else:
                return

    def _reopen(self) -> Rdict:
        """After a failed write: the old handle is of no use, and a new one needs the reserve's room.

        Only now is the old one closed, for that takes RocksDB a second, and the caller of the write hears at once.
        """
        self._close()
        self._open()
        assert self._database is not None
        return self._database

    def _scan(self, prefix: bytes, start: int) -> Iterator[tuple[int, bytes]]:
        database = self._database or self._reopen()
        try:
            for sequence, value in scan(database, prefix, start):
                if not self._later or key(prefix, sequence) not in self._later:
                    yield sequence, value
        except Exception as error:
            raise OutboxUnavailable(str(self._folder), f"its files cannot be read ({error})") from error
