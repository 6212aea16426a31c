"""Sorting more entries than fit into memory: sorted runs on disk, merged while they are read.

Owns: runs, files, the limit of memory. Must not know: what an entry means. Entries are bytes of one size, and sort as
bytes do.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import Path

__all__ = ["RUN_ENTRIES", "Sorter"]

RUN_ENTRIES = 250_000
_FAN_IN = 64
_READ_BYTES = 65_536


class Sorter:
    """Collects entries of `size` bytes each, and gives them back in order.

    Holds at most `run_entries` of them in memory (about 90 bytes each), and the rest in files in `folder`, which
    must exist; the files are the folder's to remove.
    """

    def __init__(self, folder: Path, name: str, size: int, *, run_entries: int = RUN_ENTRIES) -> None:
        self._folder = folder
        self._name = name
        self._size = size
        self._run_entries = run_entries
        self._entries: list[bytes] = []
        self._runs: list[Path] = []
        self._made = 0

    def add(self, entry: bytes) -> None:
        """Add an entry; writes a run to disk when enough have come. Raises an `OSError` where the disk is full."""
        self._entries.append(entry)
        if len(self._entries) >= self._run_entries:
            self._write_run()

    def __iter__(self) -> Iterator[bytes]:
        """Every entry in order. Nothing may be added while this is read."""
        if not self._runs:
            self._entries.sort()
            return iter(self._entries)
        self._write_run()
        return heapq.merge(*map(self._read, self._runs))

    def _write_run(self) -> None:
        entries, self._entries = self._entries, []
        if not entries:
            return
        entries.sort()
        self._runs.append(self._write(entries))
        if len(self._runs) >= _FAN_IN:  # so that no merge has too many files open
            merged = self._write(heapq.merge(*map(self._read, self._runs)))
            for run in self._runs:
                run.unlink()
            self._runs = [merged]

    def _write(self, entries: Iterator[bytes] | list[bytes]) -> Path:
        self._made += 1
        path = self._folder / f"{self._name}.{self._made}"
        with path.open("wb") as file:
            file.writelines(entries)
        return path

    def _read(self, path: Path) -> Iterator[bytes]:
        size = self._size
        chunk_bytes = _READ_BYTES // size * size
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(chunk_bytes):
                for at in range(0, len(chunk), size):
                    yield chunk[at : at + size]
