"""What a service writes down, outside Kafka: each id before it is staged, and once it is durable.

Owns: the files and their lines. Must not know: services, brokers. A line is in the hands of the kernel when the call
returns, so a killed process loses none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Journal", "durable_ids", "staged_ids"]


class Journal:
    """One process's journal; a context manager. Never written to again by another process."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_EXCL, 0o600)

    def begins(self, event_id: str) -> None:
        """The event is about to be staged."""
        os.write(self._file, f"+ {event_id}\n".encode())

    def durable(self, event_id: str, via: str) -> None:
        """`stage()` has returned."""
        os.write(self._file, f"= {event_id} {via}\n".encode())

    def refused(self, event_id: str, error: Exception) -> None:
        """`stage()` has raised; the event will be staged again with the same id."""
        os.write(self._file, f"! {event_id} {type(error).__name__}\n".encode())

    def __enter__(self) -> Self:
        """Open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Make it durable, and close."""
        os.fsync(self._file)
        os.close(self._file)


def durable_ids(folder: Path) -> dict[str, str]:
    """Every id that a service was told is durable, and by which way."""
    return {words[1]: words[2] for words in _lines(folder) if words[0] == "="}


def staged_ids(folder: Path) -> set[str]:
    """Every id that may be anywhere."""
    return {words[1] for words in _lines(folder) if words[0] == "+"}


def _lines(folder: Path) -> Iterator[list[str]]:
    for path in sorted(folder.glob("*.journal")):
        for line in path.read_text().splitlines():
            yield line.split()
