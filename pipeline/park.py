"""Parked records, and which events may not go their straight way now. Pure.

Owns: the `park-*` headers, the names things are parked under, what is diverted, cursors and how they are kept.
Must not know: Kafka clients, Faust, when a breaker opens, who drains.

A parked record is the staging record byte for byte, followed by where it was going and where it came from. While
something of a name is parked from a staging partition, everything of that name from it follows behind (T5).
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from catalog import limits
from pipeline.clock import rfc3339
from pipeline.record import RawHeader, RawHeaders
from pipeline.staging import DEFINITION, KNOWN_VERSIONS, TENANT

__all__ = [
    "AT",
    "NAMES",
    "NOTHING_DIVERTED",
    "OFFSET",
    "PARTITION",
    "REASON",
    "TARGET",
    "Checkpoint",
    "Choice",
    "Cursor",
    "Diverted",
    "Moved",
    "Origin",
    "ParkedState",
    "definition_name",
    "diverted_by",
    "dump_checkpoint",
    "is_known",
    "is_skew",
    "load_checkpoint",
    "park_headers",
    "parked_under",
    "unpark",
    "version_name",
]

TARGET = "park-target"
PARTITION = "park-staging-partition"
OFFSET = "park-staging-offset"
REASON = "park-reason"
AT = "park-at"
NAMES = (TARGET, PARTITION, OFFSET, REASON, AT)
"""The headers behind those of the staging record, in this order."""
_TARGET_AT = -len(NAMES)

_DEFINITION = "definition:"
_VERSION = "version:"
_VERSION_BYTES = 32
_REASON_BYTES = 512


def parked_under(headers: RawHeaders) -> bytes | None:
    """The name that a record on the parked topic is parked under; None for a record that is not ours."""
    if len(headers) < -_TARGET_AT:
        return None
    name, value = headers[_TARGET_AT]
    return value if name == TARGET else None


def definition_name(key: bytes) -> str | None:
    """What events of a definition that this worker does not know are parked under; None: no definition has that key."""
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return None
    return None if not text or limits.text_problem(text, limits.KEY_BYTES) else _DEFINITION + text


def version_name(version: bytes) -> str | None:
    """The same for a staging version; None: that is no version anybody will ever write."""
    is_number = version.isdigit() and len(version) <= _VERSION_BYTES
    return _VERSION + version.decode() if is_number else None


def is_skew(name: str) -> bool:
    """Whether a name is that of something no worker knew, not a topic."""
    return ":" in name


def is_known(name: str, definitions: Container[str]) -> bool:
    """Whether the definition or staging version that events are parked under is known by now."""
    if name.startswith(_DEFINITION):
        return name.removeprefix(_DEFINITION) in definitions
    return name.removeprefix(_VERSION).encode() in KNOWN_VERSIONS


class Origin(NamedTuple):
    """Where a parked record came from, and what it is parked under."""

    name: str
    partition: int
    offset: int
    reason: str
    at: float
    """When it was parked, in seconds since 1970."""


def park_headers(original: RawHeaders, origin: Origin) -> list[RawHeader]:
    """The headers of a parked record: the staging record's, kept byte for byte, and where it belongs."""
    return [
        *original,
        (TARGET, origin.name.encode()),
        (PARTITION, b"%d" % origin.partition),
        (OFFSET, b"%d" % origin.offset),
        (REASON, origin.reason.encode(errors="replace")[:_REASON_BYTES].decode(errors="ignore").encode()),
        (AT, rfc3339(origin.at).encode()),
    ]


def unpark(headers: RawHeaders) -> tuple[RawHeaders, Origin] | None:
    """The staging record's own headers, and the origin; None for what is no parked record of ours."""
    own, ours = headers[: -len(NAMES)], headers[-len(NAMES) :]
    if tuple(name for name, _ in ours) != NAMES:
        return None
    try:
        name, partition, offset, reason, at = (value.decode() for _, value in ours if value is not None)
        origin = Origin(name, int(partition), int(offset), reason, datetime.fromisoformat(at).timestamp())
    except ValueError:
        return None
    return own, origin


class Diverted(NamedTuple):
    """What may not go its straight way from one staging partition: targets by topic, and definitions and
    staging versions that are parked as unknown, also where this worker knows them by now.

    `parks_unknown`: whether more that is unknown may be parked; else it is rejected.
    """

    targets: Collection[str] = frozenset()
    definitions: Collection[bytes] = frozenset()
    versions: Collection[bytes] = frozenset()
    parks_unknown: bool = False


NOTHING_DIVERTED = Diverted()


def diverted_by(names: Iterable[str], *, parks_unknown: bool) -> Diverted:
    """The same from the names things are parked under."""
    names = frozenset(names)
    return Diverted(
        frozenset(name for name in names if not is_skew(name)),
        frozenset(name.removeprefix(_DEFINITION).encode() for name in names if name.startswith(_DEFINITION)),
        frozenset(name.removeprefix(_VERSION).encode() for name in names if name.startswith(_VERSION)),
        parks_unknown,
    )


@dataclass(frozen=True, slots=True)
class Choice:
    """Some of what is parked under a name: of a tenant, of a definition, or of both; None is any."""

    tenant: str | None = None
    definition: str | None = None

    @property
    def is_all(self) -> bool:
        """Whether everything is chosen."""
        return self.tenant is None and self.definition is None

    def has(self, headers: RawHeaders) -> bool:
        """Whether a record with these headers is chosen."""
        fields = dict(headers)
        return _is(fields.get(TENANT), self.tenant) and _is(fields.get(DEFINITION), self.definition)


def _is(found: bytes | None, wanted: str | None) -> bool:
    return wanted is None or (found or b"") == wanted.encode()


@dataclass(frozen=True, slots=True)
class Moved:
    """What has ended ahead of its turn: everything chosen below `upto`, an offset in `<ns>.parked`."""

    choice: Choice
    upto: int

    def has(self, offset: int, headers: RawHeaders) -> bool:
        """Whether this parked record has."""
        return offset < self.upto and self.choice.has(headers)


@dataclass(slots=True)
class Cursor:
    """What is parked under one name from one staging partition and has not reached an end.

    `first`, `last`: offsets in `<ns>.parked`; everything of the name below `first` has ended. `bytes`: keys,
    values and headers. `oldest_at`: seconds since 1970. `reason`: of the first record that was parked. `moved`: what
    of the rest has ended, too; `records` and `bytes` are without it.
    """

    first: int
    last: int
    records: int
    bytes: int
    oldest_at: float
    reason: str
    moved: tuple[Moved, ...] = ()

    def waits(self, offset: int, headers: RawHeaders) -> bool:
        """Whether a parked record of the name has not ended."""
        return offset >= self.first and not any(moved.has(offset, headers) for moved in self.moved)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All cursors of one staging partition. `upto`: what is parked from this offset on is not counted in them."""

    upto: int
    cursors: Mapping[str, Cursor]


_CHECKPOINT = TypeAdapter(Checkpoint)


def dump_checkpoint(checkpoint: Checkpoint) -> bytes:
    """A checkpoint as it is kept: JSON."""
    return _CHECKPOINT.dump_json(checkpoint)


def load_checkpoint(data: bytes | None) -> Checkpoint | None:
    """The checkpoint, or None for what is none: everything parked is then counted anew."""
    try:
        return _CHECKPOINT.validate_json(data or b"")
    except ValidationError:
        return None


@dataclass(frozen=True, slots=True)
class ParkedState:
    """What a worker has parked under one name from one staging partition; see `Cursor`."""

    target: str
    partition: int
    first: int
    last: int
    records: int
    bytes: int
    oldest_at: float
    reason: str
