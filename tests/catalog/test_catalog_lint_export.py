"""Advice on sound catalogs, and catalogs as data (O2)."""

from __future__ import annotations

import json
import re

import pytest
from pydantic import BaseModel

from catalog import load
from catalog.export import Change, diff, manifest
from catalog.lint import advice
from catalog.policies import PolicyOverride
from tests.catalog.catalog_builders import catalog_of, definition


class Order(BaseModel):
    """A payload."""

    number: int


GOOD = {"description": "x", "owner": "y", "payload": Order, "examples": [{"number": 1}]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"description": ""}, "description"),
        ({"owner": ""}, "owner"),
        ({"payload": None}, "payload"),
        ({"examples": []}, "example"),
        ({"payload": {"properties": {"a": {"format": "postcode"}}}}, "'postcode'"),
    ],
)
def test_advice(changes: dict[str, object], words: str) -> None:
    """What is allowed but will be missed is said, with the entry (O2)."""
    (found,) = advice(catalog_of(definition(**{**GOOD, **changes})))  # type: ignore[arg-type]
    assert (found.entry, found.rule) == ("order.created", "advice")
    assert words in found.message


def test_no_advice() -> None:
    """The example catalog is as we want catalogs to be."""
    assert advice(load("catalog.examples.flights", namespace="ns")) == []
    opaque = definition(content_type="application/avro", description="x", owner="y", examples=["x"])
    assert advice(catalog_of(opaque)) == []


def test_manifest() -> None:
    """The manifest is JSON, holds every definition, its topics and the policy in force (O2)."""
    items = catalog_of(definition(**GOOD), policies={"order.created": PolicyOverride(dlq="never")})  # type: ignore[arg-type]
    published = manifest(items)
    assert published == json.loads(json.dumps(published))
    assert published["fingerprint"] == items.fingerprint
    (entry,) = published["definitions"]
    assert entry["topic"] == "streaming.order.created"
    assert entry["dlq_topic"] == "streaming.order.created.dlq"
    assert entry["policy_in_force"] == {
        "enabled": True,
        "direct": "direct",
        "outbox": "fallback_on_circuit_open",
        "dlq": "never",
    }
    assert entry["examples"] == [{"number": 1}]
    assert re.fullmatch(r"[0-9a-f]{16}", published["fingerprint"])


def test_diff() -> None:
    """Two manifests differ by definitions that came or went, and by fields (O2)."""
    before = manifest(catalog_of(definition("a.b"), definition("c.d")))
    after = manifest(catalog_of(definition("c.d", owner="x", system=True), definition("e.f")))
    gone, owner, system, come = diff(before, after)
    assert (gone.key, gone.field, gone.after) == ("a.b", "", None)
    assert owner == Change("c.d", "owner", "", "x")
    assert system == Change("c.d", "system", False, True)
    assert (come.key, come.field, come.before) == ("e.f", "", None)
    assert diff(before, before) == []
