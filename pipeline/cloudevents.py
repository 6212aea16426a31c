"""CloudEvents 1.0 on Kafka: writing the constant headers of a definition, and reading a record back.

Owns: attribute names, both header dialects, the mapping of the Kafka protocol binding (T2).
Must not know: Kafka clients, the staging record, what is done with an event.

Source: CloudEvents Kafka protocol binding 1.0, sections 3.1 to 3.3 (binary `ce_` headers, structured JSON).
"""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic_core import from_json, to_json

from catalog import EventDefinition, limits
from pipeline.errors import StagepostError
from pipeline.record import Header, RawHeaders

__all__ = ["CloudEvent", "Dialect", "NotACloudEvent", "constant_headers", "is_framing_header", "read"]

Dialect = Literal["ce_", "ce-"]
SPEC_VERSION = "1.0"
CONTENT_TYPE = "content-type"
_REQUIRED = ("id", "source", "type")
_ATTRIBUTE = re.compile(r"[a-z0-9]+")


class NotACloudEvent(StagepostError):
    """A record is not a CloudEvent of the Kafka binding; `reason` says which rule it breaks."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"not a CloudEvent: {reason}")


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """One event as read from a record.

    `attributes` holds every context attribute by its plain name (`id`, `tenantid`, ...); `data` is the bytes
    as sent, or None where the event has no data.
    """

    attributes: Mapping[str, str]
    data: bytes | None

    @property
    def id(self) -> str:
        """The event's id."""
        return self.attributes["id"]

    @property
    def source(self) -> str:
        """The context the event happened in."""
        return self.attributes["source"]

    @property
    def type(self) -> str:
        """The kind of the event."""
        return self.attributes["type"]


def constant_headers(definition: EventDefinition, dialect: Dialect, type_prefix: str) -> tuple[Header, ...]:
    """The headers that are the same on every event of a definition, encoded once (T2)."""
    kind = f"{type_prefix}.{definition.resource_type}.{definition.event_type}"
    attributes = {
        "specversion": SPEC_VERSION,
        "type": kind,
        "schemaversion": definition.schema_version,
        "resourcetype": definition.resource_type,
        "eventtype": definition.event_type,
    }
    if definition.data_schema:
        attributes["dataschema"] = definition.data_schema
    if definition.system:
        attributes["systemevent"] = "true"
    content_type = CONTENT_TYPE if dialect == "ce_" else "ce-datacontenttype"
    return (
        (content_type, definition.content_type.encode()),
        *((dialect + name, value.encode()) for name, value in attributes.items()),
    )


def is_framing_header(name: str) -> bool:
    """Whether a header was written by framing, in either dialect."""
    return name.startswith(("ce_", "ce-")) or name == CONTENT_TYPE


def read(value: bytes | None, headers: RawHeaders) -> CloudEvent:
    """The CloudEvent in a record: binary mode in either dialect, or structured JSON.

    The mode is told by `content-type` alone, as the binding demands (3, 3.3.3). Nothing is made up: a
    missing required attribute, a repeated one, an illegal name or control character raises `NotACloudEvent`.
    """
    content_type = _single(headers, CONTENT_TYPE)
    media_type = (content_type or "").split(";")[0].strip().lower()
    if media_type.startswith("application/cloudevents-batch"):
        raise NotACloudEvent("batched mode does not exist on Kafka")
    if media_type == "application/cloudevents+json":
        return _structured(value)
    if media_type.startswith("application/cloudevents"):
        raise NotACloudEvent(f"structured mode in a format that is not read: {media_type!r}")
    return _binary(value, headers, content_type)


def _binary(value: bytes | None, headers: RawHeaders, content_type: str | None) -> CloudEvent:
    dialect = "ce_" if any(name.startswith("ce_") for name, _ in headers) else "ce-"
    attributes: dict[str, str] = {}
    if dialect == "ce_" and content_type is not None:
        attributes["datacontenttype"] = content_type
    for name, raw in headers:
        if not name.startswith(dialect):
            continue
        attribute = name.removeprefix(dialect)
        if attribute in attributes:
            raise NotACloudEvent(f"attribute {attribute!r} stands twice")
        attributes[attribute] = _text(attribute, raw)
    return CloudEvent(_checked(attributes), value)


def _structured(value: bytes | None) -> CloudEvent:
    try:
        envelope = from_json(value or b"", allow_inf_nan=False)
    except ValueError as error:
        raise NotACloudEvent("structured mode with a value that is not JSON") from error
    if not isinstance(envelope, dict):
        raise NotACloudEvent("structured mode with a value that is not a JSON object")
    # A null says that the attribute is not set (JSON event format, 2.2).
    given = {name: item for name, item in envelope.items() if item is not None}
    encoded, data = given.pop("data_base64", None), given.pop("data", None)
    if encoded is not None and data is not None:
        raise NotACloudEvent("both data and data_base64 are given")
    attributes = _checked({name: _scalar(name, item) for name, item in given.items()})
    if encoded is None:
        return CloudEvent(attributes, _data(data, attributes.get("datacontenttype", "application/json")))
    try:
        return CloudEvent(attributes, base64.b64decode(encoded, validate=True))
    except (TypeError, ValueError) as error:
        raise NotACloudEvent("data_base64 is not base64") from error


def _data(data: object, content_type: str) -> bytes | None:
    if data is None:
        return None
    media_type = content_type.split(";")[0].strip().lower()
    is_json = media_type.endswith(("/json", "+json"))
    return data.encode() if isinstance(data, str) and not is_json else to_json(data)


def _checked(attributes: dict[str, str]) -> dict[str, str]:
    if attributes.get("specversion") != SPEC_VERSION:
        raise NotACloudEvent(
            f"specversion is {attributes.get('specversion')!r}, only {SPEC_VERSION!r} is read"
        )
    for name in _REQUIRED:
        if not attributes.get(name):
            raise NotACloudEvent(f"the required attribute {name!r} is missing or empty")
    for name, value in attributes.items():
        if not _ATTRIBUTE.fullmatch(name) or name == "data":
            raise NotACloudEvent(
                f"attribute name {name!r} is not lower-case letters and digits, or is 'data'"
            )
        problem = limits.text_problem(value, sys.maxsize)
        if problem is not None:
            raise NotACloudEvent(f"attribute {name!r} {problem}")
    return attributes


def _single(headers: RawHeaders, wanted: str) -> str | None:
    values = [value for name, value in headers if name == wanted]
    if len(values) > 1:
        raise NotACloudEvent(f"header {wanted!r} stands twice")
    return _text(wanted, values[0]) if values else None


def _text(name: str, raw: bytes | None) -> str:
    if raw is None:
        raise NotACloudEvent(f"{name!r} is null")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise NotACloudEvent(f"{name!r} is not UTF-8") from error


def _scalar(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    raise NotACloudEvent(f"attribute {name!r} is neither text, integer nor boolean")
