"""How rows lie in RocksDB's files: keys, values, options.

Owns: the layout. Must not know: when anything is written or read.

A waiting row: `r` and its sequence, 8 bytes big-endian; when it was stored, milliseconds since 1970, 8 bytes; the
row. One set aside: `x` and its sequence; the time; the length of the reason, 4 bytes; the reason; the row.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from rocksdict import AccessType, DBRecoveryMode, Options, Rdict, WriteBatch

from pipeline.outbox.protocol import Stored

__all__ = [
    "ASIDE",
    "DATABASE",
    "NO_SPACE",
    "ROW",
    "TIME_BYTES",
    "WRITE_BUFFER",
    "Changes",
    "aside_of",
    "aside_value",
    "batch",
    "is_damage",
    "is_full",
    "key",
    "never_held_a_row",
    "open_to_read",
    "options",
    "row_stamp",
    "scan",
    "stored_of",
]

DATABASE = "rows"
WRITE_BUFFER = 8 << 20
NO_SPACE = "No space left"
ROW, ASIDE = b"r", b"x"
_SEQUENCE_BYTES = 8
TIME_BYTES = 8
_LENGTH_BYTES = 4
Changes: TypeAlias = "Sequence[tuple[bytes, bytes | None]]"
"""Keys with their new values, or None to delete them: all or none."""
_FULL = (NO_SPACE, "ENOSPC", "Disk quota", "EDQUOT", "File too large")
_OF_THE_SYSTEM = "IO error"
_DAMAGED = ("No such file", "While pread", "While reading")


def key(prefix: bytes, sequence: int) -> bytes:
    """The key of a row."""
    return prefix + sequence.to_bytes(_SEQUENCE_BYTES, "big")


def scan(database: Rdict, prefix: bytes, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Sequences and values under a prefix, in order, from a sequence on. Raises where the files are damaged."""
    iterator = database.iter()
    iterator.seek(key(prefix, start))
    while iterator.valid():
        found = iterator.key()
        if not found.startswith(prefix):
            return
        yield int.from_bytes(found[1:], "big"), iterator.value()
        iterator.next()
    iterator.status()  # damage looks like the end: what is behind it would be gone, and its sequences given again


def row_stamp(at: float) -> bytes:
    """What stands before a waiting row that was stored then."""
    return int(at * 1000).to_bytes(TIME_BYTES, "big")


def aside_value(row: Stored, reason: str) -> bytes:
    """What stands under the key of a row that was set aside."""
    text = reason.encode()
    return row_stamp(row.at) + len(text).to_bytes(_LENGTH_BYTES, "big") + text + row.data


def stored_of(sequence: int, value: bytes) -> Stored:
    """A waiting row from its value."""
    return Stored(sequence, int.from_bytes(value[:TIME_BYTES], "big") / 1000, value[TIME_BYTES:])


def aside_of(sequence: int, value: bytes) -> tuple[int, float, bytes, str]:
    """A row that was set aside from its value: sequence, when it was stored, bytes, reason."""
    start = TIME_BYTES + _LENGTH_BYTES
    end = start + int.from_bytes(value[TIME_BYTES:start], "big")
    at = int.from_bytes(value[:TIME_BYTES], "big") / 1000
    return sequence, at, value[end:], value[start:end].decode(errors="replace")


def batch(changes: Changes) -> WriteBatch:
    """Changes to be written together."""
    written = WriteBatch(raw_mode=True)
    for name, value in changes:
        if value is None:
            written.delete(name)
        else:
            written.put(name, value)
    return written


def options() -> Options:
    """How the files are opened."""
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    options.set_write_buffer_size(WRITE_BUFFER)
    options.set_max_write_buffer_number(2)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(1 << 20)
    return options


def open_to_read(path: Path) -> Rdict:
    """The files as they are now, for reading only; needs no room on their disk and takes no lock. Raises what RocksDB
    raises, and `OSError`."""
    with tempfile.TemporaryDirectory() as logs:  # whoever has them open logs beside them
        how = options()
        how.set_db_log_dir(logs)
        how.create_if_missing(False)
        return Rdict(str(path), how, access_type=AccessType.read_only())


def is_damage(error: BaseException | None) -> bool:
    """Whether the files are wrong: one is missing or cannot be read. What else the system refuses, for want of
    descriptors or of a right, say, says nothing about them."""
    text = str(error)
    return _OF_THE_SYSTEM not in text or any(sign in text for sign in _DAMAGED)


def is_full(error: Exception) -> bool:
    """Whether RocksDB found no room."""
    return any(sign in str(error) for sign in _FULL)


def never_held_a_row(path: Path) -> bool:
    """Whether the files of a database are none, or those of one that was never completely made: rows go to a log
    first, and from there into a table."""
    return not any(path.glob("*.sst")) and not any(log.stat().st_size for log in path.glob("*.log"))
