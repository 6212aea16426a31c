"""How much room the disk of an outbox has, and a reserve that is given up where there is none.

Owns: the reserve file, how much a write needs beside its own size. Must not know: rows, RocksDB's files.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from pipeline.outbox.files import WRITE_BUFFER

__all__ = ["Room"]

_RESERVE = "reserve"
_RESERVE_BYTES = 2 * WRITE_BUFFER


class Room:
    """The room for the outbox in one folder. The reserve is for shipping what is there; new rows leave it alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reserve = folder / _RESERVE

    def has(self, size: int) -> bool:
        """Whether so many bytes can be written, and the reserve be made again where it was given up."""
        reserve = 0 if self._reserve.exists() else _RESERVE_BYTES
        return self._free() >= size + WRITE_BUFFER + reserve

    def has_to_flush(self) -> bool:
        """Whether RocksDB can write down what it has in memory."""
        return self._free() >= WRITE_BUFFER

    def give_up_reserve(self) -> None:
        """Let RocksDB have it."""
        self._reserve.unlink(missing_ok=True)

    def make_reserve(self) -> None:
        """Take the room for it, where it is not there and there is some."""
        try:
            if self._reserve.exists() and self._reserve.stat().st_size == _RESERVE_BYTES:
                return
            with self._reserve.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, _RESERVE_BYTES)
        except OSError:
            with contextlib.suppress(OSError):
                self._reserve.unlink(missing_ok=True)

    def _free(self) -> int:
        try:
            disk = os.statvfs(self._folder)
        except OSError:  # one that does not even say takes nothing
            return 0
        return disk.f_bavail * disk.f_frsize
