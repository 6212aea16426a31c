"""Lookups, the policy in force and the fingerprint."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel, Field

import catalog
from catalog.definitions import EventDefinition
from catalog.errors import CatalogError, PayloadRefused, PolicyError, UnknownDefinition
from catalog.policies import DeliveryPolicy, PolicyOverride
from catalog.registry import Catalog
from tests.catalog.catalog_builders import catalog_of, definition

ROOT = Path(catalog.__file__).parents[1]


class Order(BaseModel):
    """A payload."""

    number: int


def test_sorted_by_key() -> None:
    """Definitions come sorted by key, whatever order they were given in."""
    items = catalog_of(definition("c.a"), definition("a.c"), definition("b.b"))
    assert [item.key for item in items.definitions] == ["a.c", "b.b", "c.a"] == [item.key for item in items]
    assert items.topics == ("streaming.a.c", "streaming.b.b", "streaming.c.a")
    assert len(items) == 3
    assert "a.c" in items


def test_lookup() -> None:
    """A known key is answered; an unknown one is None or an error with suggestions."""
    items = catalog_of(definition("order.created", payload=Order))
    assert items.require("order.created") is items.get("order.created")
    assert items.get("order.craeted") is None
    assert items.topic("order.created") == "streaming.order.created"
    with pytest.raises(PayloadRefused):
        items.validator("order.created").check(b"{}")
    for lookup in (items.require, items.topic, items.policy, items.validator):
        with pytest.raises(UnknownDefinition, match=r"did you mean 'order\.created'"):
            lookup("order.craeted")


def test_is_read_only() -> None:
    """Nobody changes a catalog that others look things up in."""
    items = catalog_of(definition())
    for name in ("namespace", "definitions", "topics", "fingerprint"):
        with pytest.raises(AttributeError):
            setattr(items, name, None)


@pytest.mark.parametrize(
    ("base", "environment", "call", "expected"),
    [
        ({}, {}, None, {}),
        ({"dlq": "never"}, {}, None, {"dlq": "never"}),
        ({"dlq": "never"}, {"dlq": "on_routable_failure"}, None, {}),
        ({"outbox": "always"}, {"dlq": "never"}, {"outbox": "never"}, {"outbox": "never", "dlq": "never"}),
        ({"enabled": False}, {}, {"enabled": True}, {}),
        ({}, {"enabled": False}, None, {"enabled": False}),
        ({}, {"outbox": "always"}, {"direct": "skip"}, {"outbox": "always", "direct": "skip"}),
    ],
)
def test_policy_precedence(
    base: dict[str, object],
    environment: dict[str, object],
    call: dict[str, object] | None,
    expected: dict[str, object],
) -> None:
    """Field by field: definition, then environment, then call (D4)."""
    items = catalog_of(
        definition(policy=base),
        policies={"order.created": PolicyOverride(**environment)},  # type: ignore[arg-type]
    )
    override = None if call is None else PolicyOverride(**call)  # type: ignore[arg-type]
    assert items.policy("order.created", override) == DeliveryPolicy(**expected)  # type: ignore[arg-type]


def test_contradictory_call() -> None:
    """A call whose merged policy cannot be is refused, naming the definition (D3, D4)."""
    with pytest.raises(PolicyError, match="skip") as caught:
        catalog_of(definition()).policy("order.created", PolicyOverride(direct="skip"))
    assert caught.value.entry == "order.created"


def test_without_files() -> None:
    """A catalog made in code has no files, and its problems still read well (D2)."""
    with pytest.raises(CatalogError, match=r"\(no file\): entry 'order\.created': D2"):
        Catalog([definition(topic="a b")], namespace="ns")


FINGERPRINT_PROGRAM = """
from catalog import load
print(load("catalog.examples.flights", namespace="streaming").fingerprint)
"""


def test_fingerprint_across_processes() -> None:
    """The fingerprint is the same in every process, whatever the hash seed."""

    def run(seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        program = [sys.executable, "-c", FINGERPRINT_PROGRAM]
        done = subprocess.run(program, env=environment, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    expected = catalog.load("catalog.examples.flights", namespace="other").fingerprint
    assert [expected] * 2 == [run("1"), run("2")]
    assert len(expected) == 16


def test_fingerprint_ignores_prose_and_order() -> None:
    """Descriptions, owners, examples, order, namespace and environment are no part of it."""

    class Described(BaseModel):
        """A payload, described at length."""

        number: int = Field(title="The number", description="It counts.", examples=[1])

    Described.__name__ = "Order"
    plain = catalog_of(definition("a.b", payload=Order), definition("c.d"))
    dressed = catalog_of(
        definition("c.d", description="x", owner="y", examples=[1]),
        definition("a.b", payload=Described),
        namespace="other",
        policies={"a.b": PolicyOverride(dlq="never")},
    )
    assert plain.fingerprint == dressed.fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"key": "x"},
        {"resource_type": "x"},
        {"event_type": "x"},
        {"schema_version": "1.0.1"},
        {"content_type": "application/problem+json"},
        {"data_schema": "urn:x"},
        {"system": True},
        {"sources": ["x"]},
        {"topic": "x"},
        {"policy": {"dlq": "never"}},
        {"payload": None},
        {"payload": {"type": "object", "properties": {"title": {"type": "string"}}}},
        {"payload": {"type": "object", "properties": {"description": {"enum": ["a"]}}}},
    ],
)
def test_fingerprint_covers_the_rest(changes: dict[str, object]) -> None:
    """Every other field counts, property names that look like prose included."""
    base = {"key": "order.created", "resource_type": "order", "event_type": "created"}
    schema = {"type": "object", "properties": {"description": {"type": "string"}}}
    one = EventDefinition.model_validate({**base, "payload": schema})
    other = EventDefinition.model_validate({**base, "payload": schema, **changes})
    assert catalog_of(one).fingerprint != catalog_of(other).fingerprint


@pytest.mark.parametrize("keyword", ["const", "default"])
def test_fingerprint_covers_values(keyword: str) -> None:
    """A literal value counts whole, whatever its members are called."""
    one, other = ({keyword: {"title": title}} for title in ("a", "b"))
    first, second = (catalog_of(definition(payload=schema)) for schema in (one, other))
    assert first.fingerprint != second.fingerprint
