"""One event as it stands in an outbox: a versioned row of bytes, the same in RocksDB and in a service's own table.

Owns: the format. Must not know: where rows are kept. A row holds the staging record byte for byte.

Version 1: the byte 1; the id, the key, the value and each header's name and value, every one as a 4-byte
big-endian length and the bytes; the length 0xFFFFFFFF stands for no value. The header count precedes the headers.
"""

from __future__ import annotations

import contextlib
import struct
from typing import NamedTuple

from pipeline.errors import StagepostError
from pipeline.record import Header
from pipeline.staging import NAMES

__all__ = ["BadRow", "Row", "decode", "encode", "key_of"]

VERSION = 1
_LENGTH = struct.Struct(">I")
_NONE = 0xFFFFFFFF


class BadRow(StagepostError):
    """A row cannot be read: written by a newer version, or damaged. `reason` says which."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the outbox row cannot be read: {reason}")


class Row(NamedTuple):
    """A staging record and its id."""

    id: str
    key: bytes
    value: bytes | None
    headers: list[Header]


def encode(row: Row) -> bytes:
    """The row's bytes."""
    parts = [bytes((VERSION,))]
    pack = _LENGTH.pack
    for data in (row.id.encode(), row.key):
        parts += (pack(len(data)), data)
    parts += (pack(_NONE),) if row.value is None else (pack(len(row.value)), row.value)
    parts.append(pack(len(row.headers)))
    for name, value in row.headers:
        parts += (_NAMES.get(name) or _named(name), pack(len(value)), value)
    return b"".join(parts)


_NAMES = {name: _LENGTH.pack(len(name)) + name.encode() for name in NAMES}
"""Our own header names as they stand in a row: nearly all that ever do."""


def _named(name: str) -> bytes:
    encoded = name.encode()
    return _LENGTH.pack(len(encoded)) + encoded


def decode(data: bytes) -> Row:
    """The row in these bytes. Raises `BadRow`."""
    if not data:
        raise BadRow("it is empty")
    if data[0] != VERSION:
        raise BadRow(
            f"it has version {data[0]}, this program knows version {VERSION}: it was written by a newer one"
        )
    try:
        return _Reader(data).row()
    except (struct.error, UnicodeDecodeError) as error:
        raise BadRow("it is damaged") from error


def key_of(data: bytes) -> bytes | None:
    """The partition key of the row in these bytes; None where they cannot be read."""
    with contextlib.suppress(BadRow):
        return decode(data).key
    return None


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 1

    def row(self) -> Row:
        event_id = (self._bytes() or b"").decode()
        key = self._bytes() or b""
        value = self._bytes()
        headers = [((self._bytes() or b"").decode(), self._bytes() or b"") for _ in range(self._length())]
        if self._at != len(self._data):
            raise BadRow("it is damaged: bytes are left over")
        return Row(event_id, key, value, headers)

    def _length(self) -> int:
        (length,) = _LENGTH.unpack_from(self._data, self._at)
        self._at += _LENGTH.size
        return int(length)

    def _bytes(self) -> bytes | None:
        length = self._length()
        if length == _NONE:
            return None
        end = self._at + length
        if end > len(self._data):
            raise BadRow("it is damaged: it ends too early")
        data = self._data[self._at : end]
        self._at = end
        return data
