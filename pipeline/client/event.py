"""From the arguments of `stage()` to a staging record: every check that can be made before anything is sent (S4).

Owns: payload encoding, field checks, the staging headers, the caps. Must not know: how the record is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Final, NamedTuple

from pydantic import BaseModel
from pydantic_core import to_json

from catalog import Catalog, EventDefinition, OwnTopics
from catalog.policies import DeliveryPolicy, PolicyOverride, format_override, override_from_mapping
from pipeline import packing, staging
from pipeline.client.known import Kind, Kinds, Tenants
from pipeline.clock import Clock, rfc3339_bytes
from pipeline.errors import EventDisabled, InvalidField, PayloadRefused, RecordTooLarge
from pipeline.ids import uuid7
from pipeline.outbox.row import encode as encode_row
from pipeline.packing import VARINTS, header_name
from pipeline.record import Header
from pipeline.settings import Settings
from pipeline.tracing import HEADERS as TRACE
from pipeline.tracing import StagedSpan, StageSpans
from pipeline.types import NO_DATA, ExtraHeaders, Payload, PolicyArgument

__all__ = ["Event", "EventChecker", "encode"]

_NO_OVERRIDE: Final = PolicyOverride()
_TIME_NAME: Final = header_name(staging.TIME)
_SUBJECT_NAME: Final = header_name(staging.SUBJECT)
_NO_VALUE: Final = VARINTS[-1]


class Event(NamedTuple):
    """A checked event, ready to be sent: its staging record, and the policy that holds for it."""

    id: str
    key: bytes
    """The partition key (T3)."""
    packed: bytes
    """The record as a batch takes it (`pipeline.packing`); all else about it is read from there."""
    policy: DeliveryPolicy
    definition: EventDefinition
    tenant: str | None
    span: StagedSpan | None = None
    """The span of this call, for its caller to end."""

    @property
    def value(self) -> bytes | None:
        """The payload; None for no data."""
        return packing.unpack(self.packed)[1]

    @property
    def headers(self) -> list[Header]:
        """The staging headers and the caller's own (S10)."""
        return [(name, value or b"") for name, value in packing.unpack(self.packed)[2]]

    def row(self) -> bytes:
        """The event as it stands in an outbox."""
        return encode_row(self.id, self.packed)


_event: Final[Callable[[tuple[object, ...]], Event]] = partial(tuple.__new__, Event)
"""An event of its fields. What a named tuple has for that takes twice as long."""


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
        self._kinds = Kinds(catalog, settings)
        self._tenants = Tenants()

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
        kind = self._kinds[key if type(key) is str else _str("key", key)]
        effective, override = kind.policy, _NO_OVERRIDE
        if policy is not None:
            override = _override(policy)
            effective = self._catalog.policy(key, override)
        if not effective.enabled:
            raise EventDisabled(key)
        event_id = uuid7() if id is None else id
        id_bytes = partition_key = staging.check_text(
            "id", event_id if type(event_id) is str else _str("id", event_id)
        )
        time_bytes = rfc3339_bytes(self._clock.time()) if time is None else _time(time)
        count = kind.header_count
        behind = b""
        if subject is not None and subject != "":
            partition_key = _text("subject", subject)
            count += 1
            behind = _SUBJECT_NAME + VARINTS[len(partition_key)] + partition_key
        if tenant is not None and tenant != "":
            partition_key, tenant_packed = self._tenants[
                tenant if type(tenant) is str else _str("tenant", tenant)
            ]
            count += 1
            behind += tenant_packed
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
        if more:
            count += len(more)
            behind += packing.headers(more)
        packed = b"".join(
            (
                VARINTS[len(partition_key)],
                partition_key,
                _NO_VALUE if value is None else VARINTS[len(value)],
                value or b"",
                VARINTS[count],
                kind.packed,
                VARINTS[len(id_bytes)],
                id_bytes,
                _TIME_NAME,
                VARINTS[len(time_bytes)],
                time_bytes,
                behind,
            )
        )
        event = _event((event_id, partition_key, packed, effective, kind.definition, tenant or None, span))
        if len(packed) > self._max_record:
            self._check_size(event)
        return event

    def _value(self, kind: Kind, payload: Payload) -> bytes | None:
        value, known_good = (payload, False) if type(payload) is bytes else encode(kind.definition, payload)
        if value is None:
            kind.validator.check(value)
            return value
        if len(value) > self._max_payload:
            raise RecordTooLarge("the payload", len(value), self._max_payload, "STREAMING_MAX_PAYLOAD_BYTES")
        if not known_good and (reason := kind.validator.judge(value)) is not None:
            raise PayloadRefused(kind.definition.key, reason)
        return value

    def _check_size(self, event: Event) -> None:
        size = staging.record_size(event.key, event.value, event.headers)
        if size > self._max_record:
            error = RecordTooLarge("the record", size, self._max_record, "STREAMING_MAX_RECORD_BYTES")
            if event.span is not None:
                event.span.end(error)
            raise error


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
    return staging.check_text(field, value if type(value) is str else _str(field, value))


def _time(time: datetime) -> bytes:
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
