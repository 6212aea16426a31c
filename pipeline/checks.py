"""The checks of a staging record that was looked up: what makes it poison (S4, S5, C3). Pure; part of the hot path.

Owns: texts, sizes, who may stage, which headers travel on. Must not know: what becomes of a record that fails.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline import staging
from pipeline.dlq import CARRIED
from pipeline.errors import InvalidField, RecordTooLarge
from pipeline.record import RawHeader, RawHeaders, ReadRecord
from pipeline.routes import Route, Router

__all__ = [
    "Disabled",
    "Limits",
    "check_policy_and_source",
    "check_sizes",
    "check_texts",
    "other_headers",
    "passed_on",
]

_TIME_BYTES = 64
_OUR_HEADERS_BYTES = 8_192
"""More than key and staging headers can have, each within its limit (S5): few records need counting exactly."""


class Limits:
    """The caps a staging record must keep, in bytes."""

    __slots__ = ("payload", "record")

    def __init__(self, payload: int, record: int) -> None:
        self.payload = payload
        self.record = record


class Disabled(Exception):
    """The effective policy says that the event is not to be delivered."""


def check_texts(event_id: bytes, time: bytes, subject: bytes | None) -> None:
    """Cheap for the usual record: one decode and one scan for all of its texts; the slow path names the field."""
    if len(time) > _TIME_BYTES or not staging.is_rfc3339(time):
        raise InvalidField(
            staging.TIME, f"is not an RFC 3339 timestamp with an offset in {_TIME_BYTES} bytes"
        )
    try:
        # The blank keeps a character that is cut at the end of one from being completed by the other.
        clean = (event_id + b" " + subject if subject else event_id).decode().isprintable()
    except UnicodeDecodeError:
        clean = False
    if not clean or not event_id or len(event_id) > 256 or (subject and len(subject) > 1024):
        staging.check_bytes("id", event_id)
        if subject:
            staging.check_bytes("subject", subject)


def check_sizes(record: ReadRecord, others: RawHeaders, limits: Limits, *, sealed: bool) -> None:
    """Within the caps, counted exactly only where it may be close. Raises `RecordTooLarge`."""
    value = record.value
    size = len(value) if value is not None else 0
    if size > limits.payload:
        raise RecordTooLarge("the payload", size, limits.payload, "STREAMING_MAX_PAYLOAD_BYTES")
    bound = size + _OUR_HEADERS_BYTES + (staging.record_size(None, None, others) if others else 0)
    if bound > limits.record or not sealed or len(record.key or b"") > 1_024:
        counted = [header for header in record.headers if header[0] not in CARRIED]
        size = staging.record_size(record.key, value, counted)
        if size > limits.record:
            raise RecordTooLarge("the record", size, limits.record, "STREAMING_MAX_RECORD_BYTES")


def check_policy_and_source(fields: Mapping[str, bytes], source: bytes, route: Route, router: Router) -> None:
    """Who may stage it, and whether it is to be delivered at all. Raises `InvalidField`, `Disabled`, `PolicyError`."""
    if route.sources is not None and source not in route.sources:
        raise InvalidField(
            staging.SOURCE,
            f"{source.decode(errors='replace')!r} may not stage {route.definition.key!r}: it is not among "
            "the definition's sources",
        )
    if not router.policy(route, fields.get(staging.POLICY)).enabled:
        raise Disabled


def other_headers(headers: RawHeaders, ours: int) -> RawHeaders:
    """The headers that are not staging headers, of which `ours` are in use. Raises where one of them stands twice."""
    others = [header for header in headers if header[0] not in staging.NAMES]
    if len(headers) - len(others) != ours:
        _check_once(headers)
    return others


def passed_on(others: RawHeaders) -> list[RawHeader]:
    """The headers that travel on as they are: trace context and the caller's own (T2)."""
    passed = [header for header in others if not staging.is_reserved(header[0])]
    for name, _ in passed:
        if not name.isascii():
            _check_name(name)
    return passed


def _check_once(headers: RawHeaders) -> None:
    seen: set[str] = set()
    for name, _ in headers:
        if name in staging.NAMES and name in seen:
            raise InvalidField(name, "stands twice")
        seen.add(name)


def _check_name(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InvalidField("headers", f"name {name[:40]!a} is not UTF-8") from error
