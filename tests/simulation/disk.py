"""The disk under a service's outbox: databases whose unsynced writes a crash loses, locks, and no room.

Owns: what stands where RocksDB, `flock` and `posix_fallocate` stand for `pipeline.outbox`; what of a database outlives
its process. Must not know: rows. Folders are real and empty, but for the reserve file, which is sparse.
"""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pipeline.outbox.files import ROW, TIME_BYTES
from tests.simulation.fibers import Killed, nap
from tests.simulation.machine import Process, current_process

__all__ = ["Disk"]

_NO_ROOM = "IO error: No space left on device"
Changes = list[tuple[bytes, bytes | None]]


class _Files:
    """A database as it lies there."""

    def __init__(self) -> None:
        self.durable: dict[bytes, bytes] = {}
        self.unsynced: list[Changes] = []
        self.rotten: set[bytes] = set()
        self.owner: Process | None = None

    def rows(self) -> dict[bytes, bytes]:
        """What whoever has it open sees."""
        rows = dict(self.durable)
        for changes in self.unsynced:
            apply(rows, changes)
        return rows

    def settle(self) -> None:
        """All of it is durable, and nobody has it open."""
        self.durable = self.rows()
        self.unsynced.clear()
        self.owner = None


class Disk:
    """Every database and every lock of the world."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.full = False
        self.slow_s = 0.0
        """What a write may take, at most, beside a moment."""
        self.files: dict[str, _Files] = {}
        self._locks: dict[str, int] = {}
        self._open: dict[int, tuple[str, Process | None]] = {}
        self._numbers = 1_000
        self._changes = 0
        self.rotten = 0
        """How many rows are to be damaged."""
        self.damaged: list[bytes] = []
        """Rows as they were before they were damaged."""

    def process_died(self, process: Process) -> None:
        """Its locks are free, and of what it had not synced only a beginning is there."""
        for descriptor in [number for number, (_, owner) in self._open.items() if owner is process]:
            self.close(descriptor)
        for files in self.files.values():
            if files.owner is process:
                kept = self.chance.randint(0, len(files.unsynced))
                del files.unsynced[kept:]
                files.settle()

    def owner_of_rows(self) -> Process | None:
        """A process that has a database open in which durable rows wait."""
        for files in self.files.values():
            if files.owner is not None and any(name.startswith(ROW) for name in files.durable):
                return files.owner
        return None

    # --- for pipeline.outbox.slots: the parts of `os` and `fcntl`

    O_RDWR, O_CREAT, O_CLOEXEC = os.O_RDWR, os.O_CREAT, os.O_CLOEXEC
    LOCK_EX, LOCK_NB = 1, 2

    def open(self, path: Path, *_: int) -> int:
        """A descriptor of a file."""
        self._numbers += 1
        self._open[self._numbers] = str(path), current_process()
        return self._numbers

    def close(self, descriptor: int) -> None:
        """Close it, which lets go of its lock."""
        path, _ = self._open.pop(descriptor)
        if self._locks.get(path) == descriptor:
            del self._locks[path]

    def flock(self, descriptor: int, _: int) -> None:
        """Lock it; raises `BlockingIOError` where somebody has."""
        path, _owner = self._open[descriptor]
        if self._locks.setdefault(path, descriptor) != descriptor:
            raise BlockingIOError(path)

    # --- for pipeline.outbox.store

    def posix_fallocate(self, descriptor: int, offset: int, size: int) -> None:
        """Take room, which is there or not."""
        if self.full:
            raise OSError(errno.ENOSPC, _NO_ROOM)
        os.truncate(descriptor, offset + size)

    def statvfs(self, _: Path) -> SimpleNamespace:
        """How much room there is."""
        return SimpleNamespace(f_bavail=0 if self.full else 1 << 20, f_frsize=4_096)

    def database(self, path: str, _: Any) -> _Database:
        """Stands for `Rdict`. Raises what RocksDB would."""
        effect()
        if not self.has_room(path) or (self.full and path not in self.files):
            raise OSError(errno.ENOSPC, _NO_ROOM)
        Path(path).mkdir(exist_ok=True)
        files = self.files.setdefault(path, _Files())
        if files.owner is not None and files.owner.alive:
            raise OSError(f"IO error: lock hold by current process: {path}/LOCK")
        files.owner = current_process()
        self._rot(files)
        self.touch(path)
        return _Database(self, path, files)

    def _rot(self, files: _Files) -> None:
        waiting = [name for name in files.durable if name.startswith(ROW) and name not in files.rotten]
        while self.rotten and waiting:
            self.rotten -= 1
            name = self.chance.choice(waiting)
            waiting.remove(name)
            files.rotten.add(name)
            row = files.durable[name]
            self.damaged.append(row[TIME_BYTES:])
            newer = row[:TIME_BYTES] + b"\x09" + row[TIME_BYTES + 1 :]
            files.durable[name] = self.chance.choice([newer, row[:-1], row + b"\0"])

    def has_room(self, path: str) -> bool:
        """Whether something fits: also on a full disk, once the reserve was given up."""
        return not self.full or not (Path(path).parent / "reserve").exists()

    def touch(self, path: str) -> None:
        """Its files change."""
        self._changes += 1
        os.utime(path, ns=(self._changes, self._changes))


class Batch:
    """Stands for `WriteBatch`."""

    def __init__(self, raw_mode: bool) -> None:
        assert raw_mode
        self.changes: Changes = []

    def put(self, key: bytes, value: bytes) -> None:
        """Set a value."""
        self.changes.append((key, value))

    def delete(self, key: bytes) -> None:
        """Remove one."""
        self.changes.append((key, None))


class _Database:
    def __init__(self, disk: Disk, path: str, files: _Files) -> None:
        self._disk = disk
        self._path = path
        self._files = files
        self._rows = dict(files.durable)
        self._broken = False

    def write(self, batch: Batch, options: Any) -> None:
        """All or none; durable at return where it is synced."""
        effect()
        nap(0.0001 + self._disk.chance.random() * self._disk.slow_s)
        grows = any(value is not None for _, value in batch.changes)
        if self._broken or (self._disk.full and (grows or not self._disk.has_room(self._path))):
            self._broken = True
            raise OSError(errno.ENOSPC, _NO_ROOM)
        apply(self._rows, batch.changes)
        self._files.unsynced.append(batch.changes)
        effect()
        if options.sync:
            for changes in self._files.unsynced:
                apply(self._files.durable, changes)
            self._files.unsynced.clear()
        self._disk.touch(self._path)
        effect()

    def iter(self) -> _Iterator:
        """A look at the rows as they are now."""
        return _Iterator(self._rows)

    def close(self) -> None:
        """What was written stays; it can be opened again."""
        self._files.settle()


class _Iterator:
    def __init__(self, rows: dict[bytes, bytes]) -> None:
        self._items = sorted(rows.items())
        self._at = 0

    def seek(self, key: bytes) -> None:
        """To the first key that is not below."""
        self._at = next((at for at, (known, _) in enumerate(self._items) if known >= key), len(self._items))

    def valid(self) -> bool:
        """Whether there is one."""
        return self._at < len(self._items)

    def key(self) -> bytes:
        """Its key."""
        return self._items[self._at][0]

    def value(self) -> bytes:
        """Its value."""
        return self._items[self._at][1]

    def status(self) -> None:
        """All is well: rows rot, files do not."""

    def next(self) -> None:
        """The next one."""
        self._at += 1


def apply(rows: dict[bytes, bytes], changes: Changes) -> None:
    """Carry changes out."""
    for key, value in changes:
        if value is None:
            rows.pop(key, None)
        else:
            rows[key] = value


def effect() -> None:
    """Something is about to happen on the disk, unless the process ends here."""
    process = current_process()
    if process is not None and not process.effect():
        raise Killed
