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
_VERSION = bytes((VERSION,))
_SHORT = 4_096


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
    event_id, key, value, headers = row
    id_bytes = event_id.encode()
    parts = [_VERSION, _LENGTHS[len(id_bytes)], id_bytes, _LENGTHS[len(key)], key]
    parts += (_LENGTHS[_NONE],) if value is None else (_LENGTHS[len(value)], value)
    parts.append(_LENGTHS[len(headers)])
    for name, content in headers:
        parts += _NAMES[name], _LENGTHS[len(content)], content
    return b"".join(parts)


class _Lengths(dict[int, bytes]):
    """Lengths as they stand in a row. The short ones are remembered."""

    def __missing__(self, length: int) -> bytes:
        packed = _LENGTH.pack(length)
        if length < _SHORT:
            self[length] = packed
        return packed


class _Names(dict[str, bytes]):
    """Names of headers as they stand in a row. Our own are remembered: nearly all that ever do."""

    def __missing__(self, name: str) -> bytes:
        encoded = name.encode()
        packed = _LENGTH.pack(len(encoded)) + encoded
        if name in NAMES:
            self[name] = packed
        return packed


_LENGTHS = _Lengths()
_NAMES = _Names()


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
