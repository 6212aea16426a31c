"""From the arguments of `stage()` to a staging record: every check that can be made before anything is sent (S4).

Owns: payload encoding, field checks, the staging headers, the caps. Must not know: how the record is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

from pydantic import BaseModel
from pydantic_core import to_json

from catalog import Catalog, EventDefinition, OwnTopics
from catalog.policies import DeliveryPolicy, PolicyOverride, format_override, override_from_mapping
from pipeline import staging
from pipeline.clock import Clock, rfc3339
from pipeline.errors import EventDisabled, InvalidField, PayloadRefused, RecordTooLarge
from pipeline.ids import uuid7
from pipeline.outbox.row import Row
from pipeline.record import Header
from pipeline.settings import Settings
from pipeline.tracing import HEADERS as TRACE
from pipeline.tracing import StagedSpan, StageSpans
from pipeline.types import NO_DATA, ExtraHeaders, Payload, PolicyArgument

__all__ = ["Event", "EventChecker", "encode"]

_NO_OVERRIDE: Final = PolicyOverride()
_ABSENT: Final = (None, "")
_LARGEST_REST: Final = 6_144
"""More than all of a record but its value and source can have without headers of the caller's."""


class Event(NamedTuple):
    """A checked event, ready to be sent: its staging record, and the policy that holds for it."""

    row: Row
    policy: DeliveryPolicy
    definition: EventDefinition
    tenant: str | None
    span: StagedSpan | None = None
    """The span of this call, for its caller to end."""

    @property
    def id(self) -> str:
        """The event's id."""
        return self.row.id

    @property
    def key(self) -> bytes:
        """The partition key (T3)."""
        return self.row.key

    @property
    def value(self) -> bytes | None:
        """The payload; None for no data."""
        return self.row.value

    @property
    def headers(self) -> list[Header]:
        """The staging headers and the caller's own (S10)."""
        return self.row.headers


class EventChecker:
    """Checks events against one catalog and one set of settings. Does no I/O; safe from any thread."""

    def __init__(
        self, catalog: Catalog, settings: Settings, clock: Clock, spans: StageSpans | None = None
    ) -> None:
        self._catalog = catalog
        self._spans = spans
        self._topic = OwnTopics(settings.namespace).staging
        self._clock = clock
        self._max_payload = settings.max_payload_bytes
        self._max_record = settings.max_record_bytes
        self._constant: tuple[Header, ...] = (
            (staging.VERSION, staging.VERSION_1),
            (staging.SOURCE, staging.check_text("source", settings.cloudevents_source)),
            (staging.CATALOG, catalog.fingerprint.encode()),
        )
        self._source = settings.cloudevents_source
        self._surely_fits = self._max_record - _LARGEST_REST - len(self._source)

    def check(
        self,
        key: str,
        payload: Payload,
        *,
        tenant: str | None = None,
        subject: str | None = None,
        id: str | None = None,  # noqa: A002 -- the CloudEvents name
        time: datetime | None = None,
        policy: PolicyArgument = None,
        headers: ExtraHeaders | None = None,
    ) -> Event:
        """The event as it will be staged. Raises a caller error (C2) for whatever is wrong with it."""
        definition = self._definition(key)
        override = _NO_OVERRIDE if policy is None else _override(policy)
        if definition.sources is not None and self._source not in definition.sources:
            raise InvalidField(
                "source", f"{self._source!r} may not stage {key!r}: see `sources` in its definition"
            )
        effective = self._catalog.policy(key, None if policy is None else override)
        if not effective.enabled:
            raise EventDisabled(key)
        event_id = uuid7() if id is None else id
        record_headers = [
            *self._constant,
            (staging.DEFINITION, key.encode()),
            (staging.ID, id_bytes := _text("id", event_id)),
            (staging.TIME, _time(time, self._clock)),
        ]
        partition_key = id_bytes
        if subject not in _ABSENT:
            partition_key = _text("subject", subject)
            record_headers.append((staging.SUBJECT, partition_key))
        if tenant not in _ABSENT:
            partition_key = _text("tenant", tenant)
            record_headers.append((staging.TENANT, partition_key))
        if definition.system:
            partition_key = b"system:" + definition.event_type.encode()
        if policy is not None and override != _NO_OVERRIDE:
            record_headers.append((staging.POLICY, format_override(override).encode()))
        if headers:
            record_headers += staging.check_extra_headers(_pairs(headers))
        value = self._value(definition, payload)
        span = None if self._spans is None else self._spans.start(key, event_id, self._topic)
        if span is not None and not (headers and any(name in TRACE for name, _ in record_headers)):
            record_headers += span.headers
        if headers or (value is not None and len(value) > self._surely_fits):
            try:
                self._check_size(partition_key, value, record_headers)
            except RecordTooLarge as error:
                if span is not None:
                    span.end(error)
                raise
        row = Row(event_id, partition_key, value, record_headers)
        return Event(row, effective, definition, tenant or None, span)

    def _definition(self, key: str) -> EventDefinition:
        definition = self._catalog.get(_str("key", key))
        return definition if definition is not None else self._catalog.require(key)  # raises

    def _value(self, definition: EventDefinition, payload: Payload) -> bytes | None:
        value, known_good = encode(definition, payload)
        if value is not None and len(value) > self._max_payload:
            raise RecordTooLarge("the payload", len(value), self._max_payload, "STREAMING_MAX_PAYLOAD_BYTES")
        if not known_good:
            self._catalog.validator(definition.key).check(value)
        return value

    def _check_size(self, key: bytes, value: bytes | None, headers: list[Header]) -> None:
        size = staging.record_size(key, value, headers)
        if size > self._max_record:
            raise RecordTooLarge("the record", size, self._max_record, "STREAMING_MAX_RECORD_BYTES")


def encode(definition: EventDefinition, payload: Payload) -> tuple[bytes | None, bool]:
    """The payload's bytes, and whether they are known to be what the definition says."""
    if payload is NO_DATA:
        return None, False
    if isinstance(payload, bytes | bytearray | memoryview):
        return bytes(payload), False
    try:
        encoded = _model_json(definition, payload) if isinstance(payload, BaseModel) else to_json(payload)
    except PayloadRefused:
        raise
    except Exception as error:  # noqa: BLE001 -- a payload's own serializers may raise anything
        raise PayloadRefused(definition.key, f"cannot be written as JSON ({type(error).__name__})") from None
    # What our own encoder wrote is JSON, but for NaN and Infinity, which the check would find.
    known_good = definition.is_json and definition.payload is None and b"NaN" not in encoded
    return encoded, known_good and b"Infinity" not in encoded


def _model_json(definition: EventDefinition, payload: BaseModel) -> bytes:
    declared = definition.payload
    if isinstance(declared, type) and not isinstance(payload, declared):
        raise PayloadRefused(definition.key, f"is a {type(payload).__name__}, not a {declared.__name__}")
    return payload.model_dump_json(by_alias=True).encode()


def _override(policy: Mapping[str, object] | PolicyOverride) -> PolicyOverride:
    if isinstance(policy, PolicyOverride):
        return policy
    if not isinstance(policy, Mapping):
        raise InvalidField(
            "policy", f"is a {type(policy).__name__}: pass a mapping such as {{'outbox': 'always'}}"
        )
    return override_from_mapping(policy)


def _str(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidField(field, f"is a {type(value).__name__}, not text: pass a str")
    return value


def _text(field: str, value: object) -> bytes:
    return staging.check_text(field, _str(field, value))


def _time(time: datetime | None, clock: Clock) -> bytes:
    if time is None:
        return rfc3339(clock.time()).encode()
    if not isinstance(time, datetime):
        raise InvalidField(
            "time", f"is a {type(time).__name__}: pass an aware datetime, e.g. datetime.now(UTC)"
        )
    if time.tzinfo is None or time.utcoffset() is None:
        raise InvalidField("time", "has no time zone: pass an aware datetime, e.g. datetime.now(UTC)")
    text = time.isoformat().encode()
    if staging.is_rfc3339(text):
        return text
    try:  # historical zones have offsets with seconds, which RFC 3339 cannot say
        return time.astimezone(UTC).isoformat().encode()
    except OverflowError:
        raise InvalidField("time", "lies outside the years 1 to 9999 in UTC") from None


def _pairs(headers: ExtraHeaders) -> list[tuple[str, str | bytes]]:
    try:
        pairs = [
            (name, value) for name, value in (headers.items() if isinstance(headers, Mapping) else headers)
        ]
    except (TypeError, ValueError):
        raise InvalidField("headers", "are neither a mapping nor pairs of name and value") from None
    for name, value in pairs:
        if not isinstance(value, bytes):
            _str(f"headers: the value of {_str('headers: a name', name)!r}", value)
    return pairs
