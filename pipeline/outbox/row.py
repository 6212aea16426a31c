"""One event as it stands in an outbox: a versioned row of bytes, the same in RocksDB and in a service's own table.

Owns: the format. Must not know: where rows are kept. A row holds the staging record byte for byte.

Version 1: the byte 1; the id's length and the id; the staging record as it stands in a batch behind its offset, packed
(`pipeline.packing`): key, value and headers. Lengths are Kafka's variable-length integers, zigzag.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from pipeline.errors import StagepostError
from pipeline.packing import VARINTS, content, unpack
from pipeline.record import Header

__all__ = ["BadRow", "Row", "decode", "encode", "key_of"]

VERSION = 1
_VERSION = bytes((VERSION,))


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
    packed: bytes
    """Key, value and headers as a batch takes them."""


def encode(event_id: str, packed: bytes) -> bytes:
    """The row of a packed staging record."""
    id_bytes = event_id.encode()
    return b"".join((_VERSION, VARINTS[len(id_bytes)], id_bytes, packed))


def decode(data: bytes) -> Row:
    """The row in these bytes. Raises `BadRow` for any that `encode` does not make of a staging record."""
    if not data:
        raise BadRow("it is empty")
    if data[0] != VERSION:
        raise BadRow(
            f"it has version {data[0]}, this program knows version {VERSION}: it was written by a newer one"
        )
    try:
        event_id, at = content(data, len(_VERSION))
        packed = data[at:]
        key, value, raw = unpack(packed)
        headers = [(_utf8(name), found) for name, found in raw if found is not None]
        if event_id is None or key is None or len(headers) < len(raw):
            raise BadRow("it is damaged: what always has a value has none")
        return Row(event_id.decode(), key, value, headers, packed)
    except ValueError as error:
        raise BadRow(f"it is damaged: {error}") from error


def _utf8(name: str) -> str:
    if not name.isascii():
        name.encode()  # one that was not UTF-8 has surrogates, and is none that we write
    return name


def key_of(data: bytes) -> bytes | None:
    """The partition key of the row in these bytes; None where it cannot be read. Looks at nothing behind it."""
    key = None
    if data[:1] == _VERSION:
        with contextlib.suppress(ValueError):
            _, at = content(data, len(_VERSION))
            key, _ = content(data, at)
    return key
