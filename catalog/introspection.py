"""The manifest by which lib-streaming services publish their events, for the tools that read it.

Owns: its form, version 1.0.0. Must not know: how it is printed or served. It shows the policies of the
definitions; those of the environment and of calls belong to a deployment, not to a catalog.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from pydantic import JsonValue

from catalog.registry import Catalog

VERSION: Final = "1.0.0"


def introspection(
    catalog: Catalog, *, service: str, source: str, outbox_supported: bool, library_version: str
) -> dict[str, JsonValue]:
    """Return the manifest of `catalog`, with events sorted by key.

    `service` is the publisher's name, `source` the CloudEvents source of what it stages.
    """
    publisher: dict[str, JsonValue] = {
        "serviceName": service,
        "sourceBase": source,
        "routePath": "",
        "outboxSupported": outbox_supported,
        "libVersion": library_version,
    }
    events: list[JsonValue] = []
    for item in catalog:
        event: dict[str, JsonValue] = {
            "key": item.key,
            "topic": catalog.topic(item.key),
            "resourceType": item.resource_type,
            "eventType": item.event_type,
            "schemaVersion": item.schema_version,
            "dataContentType": item.content_type,
            "systemEvent": item.system,
            "defaultPolicy": asdict(item.policy),
        }
        if item.data_schema:
            event["dataSchema"] = item.data_schema
        if item.description:
            event["description"] = item.description
        events.append(event)
    return {"version": VERSION, "publisher": publisher, "events": events}
