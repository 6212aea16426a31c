"""From the arguments of `stage()` to a staging record: every check that can be made before anything is sent (S4).

Owns: payload encoding, field checks, the staging headers, the caps. Must not know: how the record is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_json

from catalog import Catalog, EventDefinition
from catalog.policies import DeliveryPolicy, PolicyOverride, format_override, override_from_mapping
from pipeline import staging
from pipeline.clock import Clock, rfc3339
from pipeline.cloudevents import constant_headers
from pipeline.errors import EventDisabled, InvalidField, PayloadRefused, RecordTooLarge
from pipeline.ids import uuid7
from pipeline.settings import Settings
from pipeline.staging import Header
from pipeline.types import NO_DATA, ExtraHeaders, Payload, PolicyArgument

__all__ = ["Event", "EventChecker"]

_NO_OVERRIDE: Final = PolicyOverride()


class Event(NamedTuple):
    """A checked event, ready to be sent: the staging record, its id, and the policy that holds for it."""

    id: str
    key: bytes
    value: bytes | None
    headers: list[Header]
    policy: DeliveryPolicy
    definition: EventDefinition
    tenant: str | None


class EventChecker:
    """Checks events against one catalog and one set of settings. Does no I/O; safe from any thread."""

    def __init__(self, catalog: Catalog, settings: Settings, clock: Clock) -> None:
        self._catalog = catalog
        self._clock = clock
        self._max_payload = settings.max_payload_bytes
        self._max_record = settings.max_record_bytes
        self._type_prefix = settings.effective_type_prefix
        self._constant: tuple[Header, ...] = (
            (staging.VERSION, staging.VERSION_1),
            (staging.SOURCE, staging.check_text("source", settings.cloudevents_source)),
            (staging.CATALOG, catalog.fingerprint.encode()),
        )
        self._framed_size: dict[str, int] = {}

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
        definition = self._catalog.require(key)
        override = _NO_OVERRIDE if policy is None else _override(policy)
        effective = self._catalog.policy(key, None if policy is None else override)
        if not effective.enabled:
            raise EventDisabled(key)
        event_id = uuid7() if id is None else id
        record_headers = [
            *self._constant,
            (staging.DEFINITION, key.encode()),
            (staging.ID, id_bytes := staging.check_text("id", event_id)),
            (staging.TIME, _time(time, self._clock)),
        ]
        partition_key = id_bytes
        if subject:
            partition_key = staging.check_text("subject", subject)
            record_headers.append((staging.SUBJECT, partition_key))
        if tenant:
            partition_key = staging.check_text("tenant", tenant)
            record_headers.append((staging.TENANT, partition_key))
        if definition.system:
            partition_key = b"system:" + definition.event_type.encode()
        if policy is not None and override != _NO_OVERRIDE:
            record_headers.append((staging.POLICY, format_override(override).encode()))
        if headers:
            record_headers += staging.check_extra_headers(_pairs(headers))
        value = self._value(definition, payload)
        self._check_size(definition, partition_key, value, record_headers)
        return Event(event_id, partition_key, value, record_headers, effective, definition, tenant or None)

    def _value(self, definition: EventDefinition, payload: Payload) -> bytes | None:
        value, known_good = _encode(definition, payload)
        if value is not None and len(value) > self._max_payload:
            raise RecordTooLarge("the payload", len(value), self._max_payload, "STREAMING_MAX_PAYLOAD_BYTES")
        if not known_good:
            self._catalog.validator(definition.key).check(value)
        return value

    def _check_size(
        self, definition: EventDefinition, key: bytes, value: bytes | None, headers: list[Header]
    ) -> None:
        # The framed record on the target must keep the cap too; its constant headers may be the larger ones.
        size = staging.record_size(key, value, headers) + self._framing_size(definition)
        if size > self._max_record:
            raise RecordTooLarge("the record", size, self._max_record, "STREAMING_MAX_RECORD_BYTES")

    def _framing_size(self, definition: EventDefinition) -> int:
        size = self._framed_size.get(definition.key)
        if size is None:
            constant = constant_headers(definition, "ce_", self._type_prefix)
            size = self._framed_size[definition.key] = staging.record_size(None, None, constant)
        return size


def _encode(definition: EventDefinition, payload: Payload) -> tuple[bytes | None, bool]:
    """The payload's bytes, and whether they are known to be what the definition says."""
    if payload is NO_DATA:
        return None, False
    if isinstance(payload, bytes | bytearray | memoryview):
        return bytes(payload), False
    model = definition.payload if isinstance(definition.payload, type) else None
    try:
        if isinstance(payload, BaseModel):
            if model is not None and not isinstance(payload, model):
                raise PayloadRefused(definition.key, f"is a {type(payload).__name__}, not a {model.__name__}")
            return payload.model_dump_json().encode(), False
        encoded = to_json(payload)
    except (PydanticSerializationError, RecursionError, ValueError) as error:
        raise PayloadRefused(definition.key, f"cannot be written as JSON ({type(error).__name__})") from None
    # What our own encoder wrote is JSON, but for NaN and Infinity, which the check would find.
    known_good = definition.is_json and definition.payload is None and b"NaN" not in encoded
    return encoded, known_good and b"Infinity" not in encoded


def _override(policy: Mapping[str, object] | PolicyOverride) -> PolicyOverride:
    return policy if isinstance(policy, PolicyOverride) else override_from_mapping(policy)


def _time(time: datetime | None, clock: Clock) -> bytes:
    if time is None:
        return rfc3339(clock.time()).encode()
    if time.tzinfo is None or time.utcoffset() is None:
        raise InvalidField("time", "has no time zone: pass an aware datetime, e.g. datetime.now(UTC)")
    text = time.isoformat().encode()
    # Historical zones have offsets with seconds, which RFC 3339 cannot say.
    return text if staging.is_rfc3339(text) else time.astimezone(UTC).isoformat().encode()


def _pairs(headers: ExtraHeaders) -> Iterable[tuple[str, str | bytes]]:
    return headers.items() if isinstance(headers, Mapping) else headers
