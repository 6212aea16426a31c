"""The staging record (S10): an open format that producers in any language can write.

Owns: header names, limits in bytes (S5), encoding and strict decoding. Must not know: Kafka clients, the
catalog, what becomes of a record.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterable

from catalog import limits
from pipeline.errors import InvalidField
from pipeline.record import Header, RawHeaders

__all__ = [
    "CATALOG",
    "DEFINITION",
    "ID",
    "KNOWN_VERSIONS",
    "LIMITS",
    "NAMES",
    "POLICY",
    "SOURCE",
    "SUBJECT",
    "TENANT",
    "TIME",
    "TRACEPARENT",
    "TRACESTATE",
    "VERSION",
    "VERSION_1",
    "batch_bytes",
    "check_bytes",
    "check_extra_headers",
    "check_text",
    "header_bytes",
    "is_reserved",
    "is_rfc3339",
    "record_size",
]

VERSION = "stage-version"
DEFINITION = "stage-definition"
ID = "stage-id"
TIME = "stage-time"
SOURCE = "stage-source"
TENANT = "stage-tenant"
SUBJECT = "stage-subject"
POLICY = "stage-policy"
CATALOG = "stage-catalog"
TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
VERSION_1 = b"1"
KNOWN_VERSIONS = frozenset({VERSION_1})
"""The staging versions that this worker can read."""
NAMES = frozenset({VERSION, DEFINITION, ID, TIME, SOURCE, TENANT, SUBJECT, POLICY, CATALOG})
"""Every header of ours that a staging record may have."""

LIMITS = {
    "tenant": limits.TENANT_BYTES,
    "id": limits.ID_BYTES,
    "subject": limits.SUBJECT_BYTES,
    "source": limits.DATA_SCHEMA_BYTES,
}
"""The largest size of each field in bytes of UTF-8 (S5)."""

_RECORD_OVERHEAD = 24
_HEADER_OVERHEAD = 4
MAX_EXTRA_HEADERS = 100
MAX_HEADER_NAME = 256
MAX_HEADER_VALUE = 65_536
_RESERVED = ("stage-", "ce_", "ce-", "dlq-", "park-")
_RFC3339 = re.compile(
    rb"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8]|(29|3[01]))[Tt](?:[01]\d|2[0-3]):[0-5]\d:(?:[0-5]\d|60)(?:\.\d+)?"
    rb"(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)"
)


def is_reserved(name: str) -> bool:
    """Whether a header name belongs to the pipeline and is never passed through from a caller."""
    return name.startswith(_RESERVED) or name == "content-type"


def is_rfc3339(value: bytes) -> bool:
    """Whether the bytes are an RFC 3339 timestamp with an offset, of a day that exists (section 5.7)."""
    found = _RFC3339.fullmatch(value)
    if found is None or found.lastindex is None:
        return found is not None
    return int(value[8:10]) <= monthrange(int(value[:4]), int(value[5:7]))[1]


def check_text(field: str, value: str) -> bytes:
    """The UTF-8 bytes of a non-empty field within its limit (S5) and without control characters.

    Raises `InvalidField`, a caller error.
    """
    if value.isascii() and value.isprintable() and 0 < len(value) <= LIMITS[field]:
        return value.encode()  # nearly all; what follows finds the same, and words it
    if not value:
        raise InvalidField(field, "is empty: leave it out or give it a value")
    problem = limits.text_problem(value, LIMITS[field])
    if problem is not None:
        raise InvalidField(field, problem)
    return value.encode()


def check_bytes(field: str, value: bytes) -> None:
    """The same check for a field as it stands in a record. Raises `InvalidField`, also for what is not UTF-8."""
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise InvalidField(field, f"is not UTF-8 at byte {error.start}") from error
    check_text(field, text)


def check_extra_headers(headers: Iterable[tuple[str, str | bytes]]) -> list[Header]:
    """A caller's own headers, ready for the record: they travel on to the target as they are.

    Raises `InvalidField` for reserved or malformed names, control characters in a text value, one that is too long, or
    too many.
    """
    checked: list[Header] = []
    for name, value in headers:
        problem = limits.text_problem(name, MAX_HEADER_NAME) if name else "is empty"
        if problem is not None:
            raise InvalidField("headers", f"name {name[:40]!r} {problem}")
        if is_reserved(name):
            raise InvalidField("headers", f"name {name!r} is reserved for the pipeline: choose another")
        if isinstance(value, str):
            problem = limits.text_problem(value, MAX_HEADER_VALUE)
            if problem is not None:
                raise InvalidField("headers", f"value of {name!r} {problem}; bytes pass as they are")
            value = value.encode()
        elif len(value) > MAX_HEADER_VALUE:
            raise InvalidField(
                "headers", f"value of {name!r} has {len(value):,} bytes, the limit is {MAX_HEADER_VALUE:,}"
            )
        checked.append((name, value))
    if len(checked) > MAX_EXTRA_HEADERS:
        raise InvalidField("headers", f"are {len(checked)}, the limit is {MAX_EXTRA_HEADERS}")
    return checked


def batch_bytes(key: bytes | None, value: bytes | None, headers: RawHeaders) -> int:
    """No less than a record takes in a batch before compression, in bytes, for header names of ASCII."""
    size = _RECORD_OVERHEAD + (len(key) if key else 0) + (len(value) if value else 0)
    for name, content in headers:
        size += len(name) + (len(content) if content else 0) + _HEADER_OVERHEAD
    return size


def header_bytes(name: str) -> int:
    """No less than a header takes in a batch beside its value, in bytes, for a name of ASCII."""
    return len(name) + _HEADER_OVERHEAD


def record_size(key: bytes | None, value: bytes | None, headers: RawHeaders) -> int:
    """Bytes of key, value and headers (names and values), as `MAX_RECORD_BYTES` counts them."""
    size = len(key or b"") + len(value or b"")
    for name, content in headers:
        size += len(name) if name.isascii() else len(name.encode(errors="surrogateescape"))
        size += len(content) if content else 0
    return size
