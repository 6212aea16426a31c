"""What a record is, to whoever reads or writes one: key, value, headers, and where it stands.

Owns: the shape of headers and of records. Must not know: what any of them means. Types only: nothing here runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

__all__ = ["Header", "OutRecord", "RawHeader", "RawHeaders", "ReadRecord", "Record"]

Header = tuple[str, bytes]
"""A header as we write it."""
RawHeader = tuple[str, bytes | None]
"""A header as a foreign producer may have written it: Kafka lets the value be null, and a name that is not UTF-8
is read with surrogate escapes (PEP 383), so that its bytes are kept."""
RawHeaders = Sequence[RawHeader]

OutRecord = tuple[bytes | None, bytes | None, RawHeaders]
"""What goes on a topic: key, value, headers."""
Record = OutRecord | bytes
"""The same, as it is or packed (`pipeline.packing`)."""


class ReadRecord(Protocol):
    """A record as a Kafka consumer hands it out."""

    @property
    def offset(self) -> int:
        """Its position in its partition."""
        ...

    @property
    def timestamp(self) -> int:
        """When it was written, in milliseconds since 1970-01-01 UTC."""
        ...

    @property
    def key(self) -> bytes | None:
        """Its key; of a staging record: the partition key as staged."""
        ...

    @property
    def value(self) -> bytes | None:
        """Its payload, or None for no data."""
        ...

    @property
    def headers(self) -> RawHeaders:
        """Its headers, in order, repeated ones too."""
        ...
