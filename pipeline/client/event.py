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
from catalog.payloads import PayloadValidator
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
_NAMED: Final = {name: staging.header_bytes(name) for name in staging.NAMES}
"""What a header of ours takes in a batch beside its value."""


class Event(NamedTuple):
    """A checked event, ready to be sent: its staging record, and the policy that holds for it."""

    row: Row
    policy: DeliveryPolicy
    definition: EventDefinition
    tenant: str | None
    span: StagedSpan | None = None
    """The span of this call, for its caller to end."""
    size: int | None = None
    """No less than the record takes in a batch before compression, in bytes, where somebody knows that."""

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


class _Kind(NamedTuple):
    """What all events of one definition have in common, worked out once."""

    definition: EventDefinition
    policy: DeliveryPolicy
    """In force where a call overrides nothing."""
    headers: tuple[Header, ...]
    size: int
    """What a record takes in a batch, but for its key, its value, the values of id and time, and further headers."""
    validator: PayloadValidator
    system_key: bytes | None
    span_name: str


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
        self._kinds: dict[str, _Kind] = {}

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
        kind = self._kinds.get(_str("key", key)) or self._kind_of(key)
        effective, override = kind.policy, _NO_OVERRIDE
        if policy is not None:
            override = _override(policy)
            effective = self._catalog.policy(key, override)
        if not effective.enabled:
            raise EventDisabled(key)
        event_id = uuid7() if id is None else id
        id_bytes = partition_key = _text("id", event_id)
        time_bytes = _time(time, self._clock)
        record_headers = [*kind.headers, (staging.ID, id_bytes), (staging.TIME, time_bytes)]
        size = kind.size + len(id_bytes) + len(time_bytes)
        if subject not in _ABSENT:
            partition_key = _text("subject", subject)
            record_headers.append((staging.SUBJECT, partition_key))
            size += _NAMED[staging.SUBJECT] + len(partition_key)
        if tenant not in _ABSENT:
            partition_key = _text("tenant", tenant)
            record_headers.append((staging.TENANT, partition_key))
            size += _NAMED[staging.TENANT] + len(partition_key)
        if kind.system_key is not None:
            partition_key = kind.system_key
        more: list[Header] = []
        if policy is not None and override != _NO_OVERRIDE:
            more.append((staging.POLICY, format_override(override).encode()))
        if headers:
            more += staging.check_extra_headers(_pairs(headers))
        value = self._value(kind, payload)
        span = None if self._spans is None else self._spans.start(kind.span_name, key, event_id, self._topic)
        if span is not None and not (headers and any(name in TRACE for name, _ in more)):
            more += span.headers
        size += len(partition_key) + (len(value) if value is not None else 0)
        if more:
            record_headers += more
            size += sum(staging.header_bytes(name) + len(content) for name, content in more)
        if headers or size > self._max_record:  # a caller's names of headers may be other than ASCII
            try:
                self._check_size(partition_key, value, record_headers)
            except RecordTooLarge as error:
                if span is not None:
                    span.end(error)
                raise
        row = Row(event_id, partition_key, value, record_headers)
        return Event(row, effective, kind.definition, tenant or None, span, size)

    def _kind_of(self, key: str) -> _Kind:
        definition = self._catalog.require(key)
        if definition.sources is not None and self._source not in definition.sources:
            raise InvalidField(
                "source", f"{self._source!r} may not stage {key!r}: see `sources` in its definition"
            )
        headers = (*self._constant, (staging.DEFINITION, key.encode()))
        size = staging.batch_bytes(None, None, headers) + _NAMED[staging.ID] + _NAMED[staging.TIME]
        system_key = b"system:" + definition.event_type.encode() if definition.system else None
        kind = _Kind(
            definition,
            self._catalog.policy(key),
            headers,
            size,
            self._catalog.validator(key),
            system_key,
            f"stage {key}",
        )
        self._kinds[key] = kind
        return kind

    def _value(self, kind: _Kind, payload: Payload) -> bytes | None:
        value, known_good = (payload, False) if type(payload) is bytes else encode(kind.definition, payload)
        if value is not None and len(value) > self._max_payload:
            raise RecordTooLarge("the payload", len(value), self._max_payload, "STREAMING_MAX_PAYLOAD_BYTES")
        if not known_good:
            kind.validator.check(value)
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
