"""What definitions may not be to each other, to the namespace and to the environment (D1 to D5)."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict

from catalog.errors import Problem
from catalog.policies import PolicyOverride
from tests.catalog.catalog_builders import catalog_of, definition, problems_of


class Order(BaseModel):
    """A payload."""

    number: int


def test_duplicate_key() -> None:
    """A key is taken once; the problem names both files (D2)."""
    twin = definition("order.created", resource_type="other", topic="b")
    (problem,) = problems_of(definition("order.created"), twin)
    assert problem == Problem("2.toml", "order.created", "D2", "the key is taken by 1.toml")


def test_duplicate_kind() -> None:
    """Two keys may not stand for one resource type, event type and version (D2)."""
    problems = problems_of(
        definition("a.b", topic="x"), definition("c.d", resource_type="a", event_type="b", topic="y")
    )
    (problem,) = problems
    assert (problem.file, problem.entry, problem.rule) == ("2.toml", "c.d", "D2")
    assert "(a, b, 1.0.0) are those of 'a.b' in 1.toml" in problem.message


def test_versions_side_by_side() -> None:
    """Two major versions of one event are two definitions with two topics (D2, T1)."""
    second = definition("a.b.v2", resource_type="a", event_type="b", schema_version="2.0.0")
    assert catalog_of(definition("a.b"), second).topics == ("streaming.a.b", "streaming.a.b.v2")


def test_shared_topic_by_accident() -> None:
    """Definitions that share a topic without naming it are refused, each that does not (D2)."""
    minor = definition("a.b.minor", resource_type="a", event_type="b", schema_version="1.1.0")
    problems = problems_of(definition("a.b"), minor)
    assert [problem.entry for problem in problems] == ["a.b", "a.b.minor"]
    assert {problem.rule for problem in problems} == {"D2"}
    assert "also that of 'a.b.minor'" in problems[0].message
    named = definition("a.c", topic="streaming.a.b")
    (problem,) = problems_of(definition("a.b"), named)
    assert problem.entry == "a.b"


def test_shared_topic_on_purpose() -> None:
    """Definitions share a topic by naming it (D2)."""
    assert catalog_of(definition("a.b", topic="t"), definition("a.c", topic="t")).topics == ("t",)


@pytest.mark.parametrize("topic", ["a b", "..", "x" * 250])
def test_illegal_topic(topic: str) -> None:
    """The final topic is a legal Kafka name (D2)."""
    (problem,) = problems_of(definition(topic=topic))
    assert (problem.file, problem.entry, problem.rule) == ("1.toml", "order.created", "D2")
    assert topic in problem.message


def test_illegal_dead_letter_topic() -> None:
    """So is the dead-letter topic: 245 characters leave room for `.dlq`, 246 do not (D2)."""
    assert catalog_of(definition(topic="x" * 245))
    (problem,) = problems_of(definition(topic="x" * 246))
    assert "250 characters" in problem.message


def test_too_long_with_the_namespace() -> None:
    """Types within their limits can still make a topic that is too long (D2, T1)."""
    (problem,) = problems_of(definition(resource_type="r" * 128, event_type="e" * 128))
    assert problem.rule == "D2"


@pytest.mark.parametrize(
    "topic",
    [
        "streaming.staging",
        "streaming.parked",
        "streaming.dlq.index",
        "streaming.dlq.state",
        "streaming.jobs",
        "streaming.audit",
        "streaming.staging.dlq",
        "streaming-pipeline-parked-changelog",
    ],
)
def test_own_topic(topic: str) -> None:
    """No target is one of the pipeline's own topics (D2, N4)."""
    (problem,) = problems_of(definition(topic=topic))
    assert problem.rule == "D2"
    assert topic in problem.message


def test_own_topic_made_of_types() -> None:
    """Types can spell an own topic too (D2, N4)."""
    (problem,) = problems_of(definition("dlq.index"))
    assert "streaming.dlq.index" in problem.message


def test_dead_letter_topic_as_target() -> None:
    """No target is a DLQ, which its name would make it (D2, N4)."""
    (problem,) = problems_of(definition("a.b"), definition("a.c", topic="streaming.a.b.dlq"))
    assert problem.entry == "a.c"
    assert ".dlq" in problem.message


@pytest.mark.parametrize(
    ("one", "other"), [("a.b", "a_b"), ("a.dlq.x", "a.dlq_x"), ("streaming_parked", None), ("a_dlq", "a")]
)
def test_colliding_topics(one: str, other: str | None) -> None:
    """Kafka refuses names that differ in dot and underscore only, ours included (D2)."""
    definitions = [definition("z.one", topic=one)]
    if other:
        definitions.insert(0, definition("z.other", topic=other))
    (problem,) = problems_of(*definitions)
    assert (problem.entry, problem.rule) == ("z.one", "D2")
    assert "collide" in problem.message


def test_unknown_key_in_the_environment() -> None:
    """A policy for an unknown definition is refused, with a suggestion (D5)."""
    (problem,) = problems_of(definition(), policies={"order.craeted": PolicyOverride(dlq="never")})
    assert (problem.file, problem.entry, problem.rule) == ("STREAMING_EVENT_POLICIES", "order.craeted", "D5")
    assert "'order.created'" in problem.message


def test_contradictory_policy() -> None:
    """direct=skip needs outbox=always once the environment is laid over the definition (D3, D4)."""
    half = definition(policy={"direct": "skip"})
    (problem,) = problems_of(half)
    assert (problem.file, problem.entry, problem.rule) == ("1.toml", "order.created", "D3")
    assert catalog_of(half, policies={"order.created": PolicyOverride(outbox="always")})
    (problem,) = problems_of(definition(), policies={"order.created": PolicyOverride(direct="skip")})
    assert "STREAMING_EVENT_POLICIES" in problem.file


@pytest.mark.parametrize("payload", [Order, Order.model_json_schema()], ids=["model", "schema"])
def test_bad_example(payload: object) -> None:
    """Each example must be a payload; the problem says which is not, and why (D1)."""
    (problem,) = problems_of(definition(payload=payload, examples=[{"number": 1}, {}]))
    assert (problem.file, problem.entry, problem.rule) == ("1.toml", "order.created", "D1")
    assert problem.message.startswith("example 2: ")
    assert "number" in problem.message


def test_example_that_is_not_json() -> None:
    """NaN is a Python number, not a JSON one (D1)."""
    (problem,) = problems_of(definition(examples=[float("nan")]))
    assert problem.message.startswith("example 1: ")


def test_model_without_a_schema() -> None:
    """A model that has no JSON Schema cannot be described or fingerprinted (D1)."""

    class Opaque(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)

        thing: memoryview

    (problem,) = problems_of(definition(payload=Opaque))
    assert (problem.entry, problem.rule) == ("order.created", "D1")


@pytest.mark.parametrize("namespace", ["", "a b", "x" * 101])
def test_bad_namespace(namespace: str) -> None:
    """A namespace no topic can begin with is the one problem then (N4)."""
    (problem,) = problems_of(definition(topic="a b"), namespace=namespace)
    assert problem.rule == "N4"


def test_all_problems_at_once() -> None:
    """Nothing hides behind the first problem (D2)."""
    problems = problems_of(
        definition("a.b", topic="a b"),
        definition("c.d", policy={"direct": "skip"}),
        definition("e.f", payload=Order, examples=[{}]),
        policies={"nobody": PolicyOverride(dlq="never")},
    )
    assert {problem.entry for problem in problems} == {"a.b", "c.d", "e.f", "nobody"}
