"""A record as it stands in a batch, Kafka's message format v2: what is known before the batch is made is bytes then.

Owns: varints, headers and records as bytes. Must not know: batches, what a record means.

A packed record is all that comes behind its offset: key, value and headers. Whoever makes many that share headers
packs those once (`header`), and joins the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.record import OutRecord, RawHeaders

__all__ = ["PACKED_OVERHEAD", "VARINTS", "header", "header_name", "headers", "join", "pack", "unpack"]

PACKED_OVERHEAD = 12
"""No less than a batch adds to a packed record, in bytes: length, attributes, time and offset."""
_REMEMBERED = 4_096
_START = b"\0\0"
"""No attributes, and the time of the batch."""


class _Varints(dict[int, bytes]):
    """Integers as they stand in a record: zigzag, seven bits a byte. Those that occur are remembered."""

    def __missing__(self, number: int) -> bytes:
        rest = number << 1 if number >= 0 else -number * 2 - 1
        packed = bytearray()
        while rest > 0x7F:
            packed.append(rest & 0x7F | 0x80)
            rest >>= 7
        packed.append(rest)
        made = bytes(packed)
        if number < _REMEMBERED:
            self[number] = made
        return made


VARINTS = _Varints()
_NULL = VARINTS[-1]


class _Starts(dict[int, bytes]):
    """What stands before a packed record, by its number in the batch."""

    def __missing__(self, number: int) -> bytes:
        made = _START + VARINTS[number]
        if number < _REMEMBERED:
            self[number] = made
        return made


_STARTS = _Starts()


def header_name(name: str) -> bytes:
    """A header up to its value. A name read with surrogate escapes becomes the bytes that it was."""
    data = name.encode(errors="surrogateescape")
    return VARINTS[len(data)] + data


def header(name: str, value: bytes | None) -> bytes:
    """A header."""
    return header_name(name) + (_NULL if value is None else VARINTS[len(value)] + value)


def headers(items: RawHeaders) -> bytes:
    """Headers that follow each other, without their number."""
    return b"".join([header(name, value) for name, value in items])


def pack(record: OutRecord) -> bytes:
    """A record, packed. Raises `TypeError` or `AttributeError` for what is no record."""
    key, value, items = record
    parts = [_NULL] if key is None else [VARINTS[len(key)], key]
    parts += (_NULL,) if value is None else (VARINTS[len(value)], value)
    parts += VARINTS[len(items)], headers(items)
    return b"".join(parts)


def unpack(packed: bytes) -> OutRecord:
    """The record that was packed."""
    reader = _Reader(packed)
    key, value = reader.content(), reader.content()
    items = []
    for _ in range(reader.number()):
        name = reader.content() or b""
        items.append((name.decode(errors="surrogateescape"), reader.content()))
    return key, value, items


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self) -> int:
        zigzag = shift = 0
        while True:
            byte = self._data[self._at]
            self._at += 1
            zigzag |= (byte & 0x7F) << shift
            if byte < 0x80:
                return zigzag >> 1 ^ -(zigzag & 1)
            shift += 7

    def content(self) -> bytes | None:
        size = self.number()
        if size < 0:
            return None
        self._at += size
        return self._data[self._at - size : self._at]


def join(records: Sequence[bytes]) -> bytes:
    """Packed records as they follow each other in a batch."""
    parts: list[bytes] = []
    for start, record in zip(map(_STARTS.__getitem__, range(len(records))), records, strict=True):
        parts += VARINTS[len(start) + len(record)], start, record
    return b"".join(parts)
