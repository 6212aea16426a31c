"""A catalog as an AsyncAPI 3.0 document, for the tools of those who consume its events.

Owns: the form of that document. Must not know: how it is printed.
"""

from __future__ import annotations

import re
from typing import Final

from pydantic import JsonValue

from catalog.definitions import EventDefinition
from catalog.registry import Catalog

Json = dict[str, JsonValue]

_KAFKA_BINDING: Final = "0.5.0"
_SCHEMA_FORMAT: Final = "application/schema+json;version=draft-2020-12"
_ID_CHARS: Final = re.compile(r"[^a-zA-Z0-9._-]")
_TEXT: Final[Json] = {"type": "string"}


def asyncapi(catalog: Catalog, *, type_prefix: str, prefix: str = "ce_") -> Json:
    """Return the AsyncAPI 3.0 document of `catalog`: a channel for each topic, a message for each definition.

    `type_prefix` is what the CloudEvents types begin with, `prefix` what its headers begin with. The
    application that it describes is the worker, which sends.
    """
    channels: dict[str, JsonValue] = {}
    operations: dict[str, JsonValue] = {}
    messages: dict[str, JsonValue] = {}
    for topic in catalog.topics:
        of_topic = [item for item in catalog if catalog.topic(item.key) == topic]
        names = {_id(item.key): item for item in of_topic}
        channels[_id(topic)] = {
            "address": topic,
            "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
            "bindings": {"kafka": {"topic": topic, "bindingVersion": _KAFKA_BINDING}},
        }
        operations[f"deliver-{_id(topic)}"] = {
            "action": "send",
            "channel": {"$ref": f"#/channels/{_id(topic)}"},
            "summary": f"Deliver events to {topic}, in order for each key, at least once.",
            "messages": [{"$ref": f"#/channels/{_id(topic)}/messages/{name}"} for name in names],
        }
        messages |= {name: _message(item, type_prefix, prefix) for name, item in names.items()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": f"Events of {catalog.namespace}",
            "version": catalog.fingerprint,
            "description": "CloudEvents 1.0 in binary mode, as Stagepost delivers them.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages},
    }


def _message(item: EventDefinition, type_prefix: str, prefix: str) -> Json:
    found: Json = {
        "name": item.key,
        "title": f"{item.resource_type} {item.event_type}",
        "contentType": item.content_type,
        "headers": _headers(item, type_prefix, prefix),
        "tags": [{"name": f"owner:{item.owner}"}] if item.owner else [],
        "bindings": {"kafka": {"key": dict(_TEXT), "bindingVersion": _KAFKA_BINDING}},
    }
    if item.description:
        found["description"] = item.description
    schema = item.payload_schema
    if schema is not None:
        # The schema's own references are resolved within it: it is a resource of its own.
        own: Json = {"$id": f"urn:stagepost:{_id(item.key)}:{item.schema_version}", **schema}
        found["payload"] = {"schemaFormat": _SCHEMA_FORMAT, "schema": own}
    if item.examples:
        found["examples"] = [{"payload": example} for example in item.examples if isinstance(example, dict)]
    return found


def _headers(item: EventDefinition, type_prefix: str, prefix: str) -> Json:
    constant = {
        "specversion": "1.0",
        "type": f"{type_prefix}.{item.resource_type}.{item.event_type}",
        "schemaversion": item.schema_version,
        "resourcetype": item.resource_type,
        "eventtype": item.event_type,
    }
    texts = ["id", "source", "time", "partitionkey"]
    properties: Json = {
        f"{prefix}{name}": {"type": "string", "const": value} for name, value in constant.items()
    }
    properties |= {f"{prefix}{name}": dict(_TEXT) for name in texts}
    required: list[JsonValue] = [f"{prefix}{name}" for name in (*constant, *texts)]
    optional = ["subject"] if item.system else ["subject", "tenantid"]
    properties |= {f"{prefix}{name}": dict(_TEXT) for name in optional}
    return {"type": "object", "required": required, "properties": properties}


def _id(name: str) -> str:
    return _ID_CHARS.sub("-", name)
