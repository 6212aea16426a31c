"""What one definition may hold (D1 to D3, S5)."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from catalog.definitions import EventDefinition
from catalog.errors import CatalogError
from catalog.policies import DeliveryPolicy
from tests.catalog.catalog_builders import definition, refused


class Order(BaseModel):
    """A payload."""

    number: int


def test_defaults() -> None:
    """Only key and types are needed; the rest has the defaults of D1 and D3."""
    item = EventDefinition(key="order.created", resource_type="order", event_type="created")
    assert (item.schema_version, item.content_type) == ("1.0.0", "application/json")
    assert (item.system, item.sources, item.topic, item.payload) == (False, None, None, None)
    assert item.policy == DeliveryPolicy()


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("key", "", "D1"),
        ("key", "k" * 257, "S5"),
        ("key", "é" * 129, "S5"),
        ("key", "a\nb", "S5"),
        ("key", "a,b", "D5"),
        ("key", "a;b", "D5"),
        ("key", " a", "D5"),
        ("key", 7, "D1"),
        ("resource_type", "", "D2"),
        ("resource_type", "Order", "D2"),
        ("resource_type", "a.b", "D2"),
        ("resource_type", "_a", "D2"),
        ("resource_type", "r" * 129, "S5"),
        ("event_type", "created!", "D2"),
        ("event_type", "created\n", "S5"),
        ("event_type", "e" * 129, "S5"),
        ("schema_version", "1", "D1"),
        ("schema_version", "v1.0.0", "D1"),
        ("schema_version", "01.0.0", "D1"),
        ("schema_version", "1.0.0-01", "D1"),
        ("schema_version", "1.0.0-" + "a" * 59, "S5"),
        ("content_type", "json", "D1"),
        ("content_type", "application/json; charset", "D1"),
        ("content_type", "a/" + "b" * 255, "S5"),
        ("data_schema", "schemas/order.json", "D1"),
        ("data_schema", "https://a b", "D1"),
        ("data_schema", "https:", "D1"),
        ("data_schema", "https://a/" + "b" * 2048, "S5"),
        ("owner", "a\tb", "S5"),
        ("system", "yes", "D1"),
        ("sources", [], "D1"),
        ("sources", [""], "D1"),
        ("sources", "billing", "D1"),
        ("topic", "", "D1"),
        ("policy", {"outbox": "sometimes"}, "D3"),
        ("policy", {"colour": "red"}, "D3"),
        ("policy", {"enabled": "no"}, "D3"),
        ("policy", "always", "D3"),
        ("payload", int, "D1"),
        ("payload", "order.json", "D1"),
        ("payload", {"type": "nothing"}, "D1"),
        ("payload", {"type": "string", "pattern": "("}, "D1"),
        ("payload", {"$schema": "http://json-schema.org/draft-07/schema#"}, "D1"),
        ("payload", {"$ref": "#/$defs/nowhere"}, "D1"),
        ("payload", {"properties": {"a": {"$ref": "https://example.com/a.json"}}}, "D1"),
        ("payload", {"default": float("nan")}, "D1"),
        ("payload", {"default": object()}, "D1"),
        ("examples", [object()], "D1"),
        ("examples", {"a": 1}, "D1"),
        ("colour", "red", "D1"),
    ],
)
def test_bad_field(field: str, value: object, rule: str) -> None:
    """A field that breaks a rule is refused; the problem names entry, rule and field."""
    problem = refused(**{field: value})
    expected_entry = value if field == "key" and isinstance(value, str) else "order.created"
    assert rule == problem.rule
    assert problem.message.startswith(field)
    assert problem.entry == (expected_entry if value != 7 else "")


def test_missing_field() -> None:
    """Without its types there is no definition, and both are reported at once (D1)."""
    with pytest.raises(CatalogError) as caught:
        EventDefinition.model_validate({"key": "a"})
    places = {problem.message.partition(":")[0] for problem in caught.value.problems}
    assert places == {"resource_type", "event_type"}
    assert {problem.entry for problem in caught.value.problems} == {"a"}


@pytest.mark.parametrize(
    "version", ["0.0.0", "1.2.3-alpha.1", "1.0.0+20130313144700", "1.0.0-x-y-z.-", "2.0.0-rc.1+build.1"]
)
def test_semver(version: str) -> None:
    """Any semantic version 2.0 passes, with pre-release and build (D1)."""
    assert definition(schema_version=version).schema_version == version


@pytest.mark.parametrize(
    ("content_type", "is_json"),
    [
        ("application/json", True),
        ("Application/JSON ; charset=utf-8", True),
        ("application/vnd.acme.order+json", True),
        ('application/problem+json; profile="a;b"', True),
        ("application/jsonl", False),
        ("application/avro", False),
        ("text/plain; charset=utf-8", False),
    ],
)
def test_is_json(content_type: str, is_json: bool) -> None:
    """JSON is application/json or a +json suffix, whatever the parameters (D1)."""
    assert is_json is definition(content_type=content_type).is_json


@pytest.mark.parametrize("uri", ["https://example.com/a?b#c", "urn:acme:order:1", "tag:a%20b"])
def test_absolute_uri(uri: str) -> None:
    """The data schema is any absolute URI, fetched by nobody (D1)."""
    assert definition(data_schema=uri).data_schema == uri


def test_limits_are_inclusive() -> None:
    """Text of exactly the limit passes (S5)."""
    item = definition(
        key="k" * 256,
        resource_type="r" * 128,
        event_type="e" * 128,
        schema_version="1.0.0-" + "a" * 58,
        content_type="a/" + "b" * 254,
        data_schema="urn:" + "b" * 2044,
        topic="t",
    )
    assert len(item.key) == 256


def test_partly_filled_policy_takes_defaults() -> None:
    """A mapping with one field leaves the others at their defaults; it does not disable (D3)."""
    assert definition(policy={"outbox": "always"}).policy == DeliveryPolicy(outbox="always")


def test_payload_needs_a_json_content_type() -> None:
    """A payload model describes JSON, so it cannot go with another content type (D1)."""
    problem = refused(content_type="application/avro", payload=Order)
    assert (problem.entry, problem.rule) == ("order.created", "D1")
    assert "application/avro" in problem.message


def test_payload_schema() -> None:
    """A model and a mapping both give a JSON Schema; later changes of the mapping do not matter (D1)."""
    mapping = {"type": "object"}
    item = definition(payload=mapping)
    mapping["type"] = "array"
    assert item.payload_schema == {"type": "object"}
    schema = definition(payload=Order).payload_schema
    assert schema is not None
    assert schema["required"] == ["number"]
    assert definition().payload_schema is None


def test_examples_may_be_instances() -> None:
    """An instance of the model is as good an example as its JSON value (D1)."""
    assert definition(payload=Order, examples=[Order(number=1), {"number": 2}]).examples == (
        {"number": 1},
        {"number": 2},
    )


def test_is_frozen_and_hashable() -> None:
    """A definition cannot change, and can be a dictionary's key even with a JSON Schema (D1)."""
    item = definition(payload={"type": "object"})
    with pytest.raises(ValidationError, match="frozen"):
        item.key = "other"  # type: ignore[misc]  # that is the point
    assert {item: 1}[definition(payload={"type": "object"})] == 1


def test_topic_in() -> None:
    """A definition knows its target in a namespace (T1)."""
    assert definition(schema_version="3.0.0").topic_in("ns") == "ns.order.created.v3"
    assert definition(schema_version="3.0.0").major == 3
    assert definition(topic="orders").topic_in("ns") == "orders"
