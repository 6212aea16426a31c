"""What a program of the demonstration writes down before it sends: the ids that have to be found again.

Owns: the ledger file, one JSON line for each event. Must not know: Kafka, what became of the events.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

__all__ = ["SUFFIX", "Entry", "Ledger", "read"]

SUFFIX = ".ledger"


class Entry(NamedTuple):
    """An event that is about to be sent. `error_class`: the one it has to be dead-lettered with; empty: none.

    `key` is the definition's; empty where the record does not say it. `tenant` is empty for a system event.
    """

    id: str
    key: str
    tenant: str
    error_class: str = ""


class Ledger:
    """Appends entries to a file; each is in the file before `note` returns. Safe from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def note(self, entry: Entry) -> None:
        """Write an entry down. Blocks on the disk."""
        line = json.dumps(entry) + "\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()

    def __enter__(self) -> Self:
        """Open the file."""
        self._file: IO[str] = self._path.open("a", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()


def read(path: Path) -> Iterator[Entry]:
    """Yield the entries of a ledger file, in the order they were written."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield Entry(*json.loads(line))
