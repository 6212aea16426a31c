"""A record as it stands in a batch, Kafka's message format v2: what is known before the batch is made is bytes then.

Owns: varints, headers and records as bytes. Must not know: batches, what a record means.

A packed record is all that comes behind its offset: key, value and headers. Whoever makes many that share headers
packs those once (`header`), and joins the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipeline.record import OutRecord, RawHeader, RawHeaders

__all__ = [
    "PACKED_OVERHEAD",
    "VARINTS",
    "content",
    "header",
    "header_name",
    "headers",
    "join",
    "pack",
    "unpack",
]

PACKED_OVERHEAD = 12
"""No less than a batch adds to a packed record, in bytes: length, attributes, time and offset."""
_REMEMBERED = 4_096
_LONGEST_VARINT = 5
"""Of the 32-bit numbers that stand in a packed record, in bytes."""
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
_FIRST_STARTS = tuple(_STARTS[number] for number in range(256))


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
    """The record that was packed. Raises `ValueError` for bytes that `pack` does not make of any."""
    key, at = content(packed, 0)
    value, at = content(packed, at)
    count, at = _number(packed, at)
    if count < 0:
        raise ValueError("less than no headers")
    items: list[RawHeader] = []
    for _ in range(count):
        name, at = content(packed, at)
        if name is None:
            raise ValueError("a header has no name")
        found, at = content(packed, at)
        items.append((name.decode(errors="surrogateescape"), found))
    if at != len(packed):
        raise ValueError("bytes are left over")
    return key, value, items


def content(data: bytes, at: int) -> tuple[bytes | None, int]:
    """The key, value, or name or value of a header, that begins there, and where it ends. Raises `ValueError` where
    nothing of the kind stands there."""
    size, at = _number(data, at)
    if size < 0:
        if size < -1:
            raise ValueError("a length below -1")
        return None, at
    end = at + size
    if end > len(data):
        raise ValueError("it ends too early")
    return data[at:end], end


def _number(data: bytes, at: int) -> tuple[int, int]:
    if at < len(data) and (byte := data[at]) < 0x80:  # nearly all
        return byte >> 1 ^ -(byte & 1), at + 1
    zigzag = shift = 0
    for byte in data[at : at + _LONGEST_VARINT]:
        at += 1
        zigzag |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and shift:
                raise ValueError("a number is longer than it needs to be")
            return zigzag >> 1 ^ -(zigzag & 1), at
        shift += 7
    raise ValueError("a number does not end")


def join(records: Sequence[bytes]) -> bytes:
    """Packed records as they follow each other in a batch."""
    parts: list[bytes] = []
    starts: Iterable[bytes] = _FIRST_STARTS
    if len(records) > len(_FIRST_STARTS):
        starts = map(_STARTS.__getitem__, range(len(records)))
    for start, record in zip(starts, records, strict=False):
        parts += VARINTS[len(start) + len(record)], start, record
    return b"".join(parts)
