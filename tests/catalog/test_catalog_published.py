"""The catalog as other programs read it: AsyncAPI 3.0, judged by its official schema; lib-streaming's manifest (O2)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator

from catalog import Catalog, EventDefinition
from catalog.asyncapi import asyncapi
from catalog.examples.flights import DEFINITIONS as FLIGHTS
from catalog.introspection import introspection
from tests.catalogs.shop import DEFINITIONS as SHOP

SCHEMA = json.loads((Path(__file__).parents[1] / "schemas" / "asyncapi-3.0.0.json").read_text())


def document(definitions: tuple[EventDefinition, ...], prefix: str = "ce_") -> dict[str, Any]:
    """The AsyncAPI document of a catalog, as it is printed."""
    catalog = Catalog(definitions, namespace="shop")
    return json.loads(json.dumps(asyncapi(catalog, type_prefix="com.shop", prefix=prefix)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("definitions", [FLIGHTS, SHOP, ()], ids=["flights", "shop", "empty"])
def test_the_document_is_what_asyncapi_says(definitions: tuple[EventDefinition, ...]) -> None:
    """O2: `catalog export --format asyncapi` is valid by AsyncAPI's own JSON schema, and every reference in it leads
    somewhere."""
    found = document(definitions)
    Draft7Validator(SCHEMA).validate(found)
    for reference in _references(found):
        at: Any = found
        for part in reference.removeprefix("#/").split("/"):
            at = at[part]


def test_the_schema_judges() -> None:
    """O2: the official schema refuses a document that is none, so that its consent means something."""
    found = document(SHOP)
    found["channels"]["shop.order.paid"]["addres"] = "x"
    assert list(Draft7Validator(SCHEMA).iter_errors(found))


def test_the_document_says_what_is_delivered() -> None:
    """O2, T1, T2: topics are channels, definitions their messages, with the headers that stand on every event and the
    payload's schema."""
    found = document(SHOP)
    assert found["channels"]["shop.order.created.v2"]["address"] == "shop.order.created.v2"
    message = found["components"]["messages"]["order.created-2"]
    headers = message["headers"]
    assert headers["properties"]["ce_type"]["const"] == "com.shop.order.created"
    assert headers["properties"]["ce_schemaversion"]["const"] == "2.4.0"
    assert "ce_id" in headers["required"]
    assert "ce_tenantid" not in found["components"]["messages"]["clock.ticked"]["headers"]["properties"]
    paid = found["components"]["messages"]["order.paid"]["payload"]["schema"]
    assert Draft202012Validator(paid).is_valid({"cents": 1})
    assert not Draft202012Validator(paid).is_valid({"cents": "1"})
    assert "ce-id" in document(SHOP, "ce-")["components"]["messages"]["order.paid"]["headers"]["required"]


def test_schemas_with_references_stand_alone() -> None:
    """O2: a payload schema that refers to its own parts is still whole within the document."""
    messages = document(FLIGHTS)["components"]["messages"]
    departed = messages["flight.departed"]
    for example in departed["examples"]:
        Draft202012Validator(departed["payload"]["schema"]).validate(example["payload"])


def test_the_manifest_is_lib_streamings() -> None:
    """O2: the introspection manifest has the names that readers of lib-streaming's look for, and shows the policies of
    definitions only."""
    catalog = Catalog(SHOP, namespace="shop")
    found = introspection(
        catalog, service="shop", source="//shop/web", outbox_supported=True, library_version="1.2.3"
    )
    assert found["version"] == "1.0.0"
    assert found["publisher"] == {
        "serviceName": "shop",
        "sourceBase": "//shop/web",
        "routePath": "",
        "outboxSupported": True,
        "libVersion": "1.2.3",
    }
    events = {event["key"]: event for event in json.loads(json.dumps(found))["events"]}
    assert [*events] == sorted(events)
    assert events["order.created@2"] == {
        "key": "order.created@2",
        "topic": "shop.order.created.v2",
        "resourceType": "order",
        "eventType": "created",
        "schemaVersion": "2.4.0",
        "dataContentType": "application/json; charset=utf-8",
        "dataSchema": "https://example.com/schemas/order-2.json",
        "systemEvent": False,
        "defaultPolicy": {
            "enabled": True,
            "direct": "direct",
            "outbox": "fallback_on_circuit_open",
            "dlq": "on_routable_failure",
        },
    }
    assert events["fax.sent"]["defaultPolicy"]["enabled"] is False


def _references(part: object, key: str = "") -> list[str]:
    if isinstance(part, dict):
        if key == "payload":
            return []  # a schema of its own, with references of its own
        own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return own + [found for name, value in part.items() for found in _references(value, name)]
    if isinstance(part, list):
        return [found for item in part for found in _references(item)]
    return []
