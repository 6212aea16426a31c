"""Topic names: targets, our own, and what Kafka allows (T1, N4, D2)."""

from __future__ import annotations

import pytest

from catalog.limits import text_problem
from catalog.names import (
    OwnTopics,
    collision_name,
    dlq_of,
    major_of,
    namespace_problem,
    target_topic,
    topic_problem,
)


@pytest.mark.parametrize(
    ("version", "override", "expected"),
    [
        ("1.0.0", None, "ns.order.created"),
        ("0.3.0", None, "ns.order.created"),
        ("1.9.9-rc.1+build", None, "ns.order.created"),
        ("2.0.0", None, "ns.order.created.v2"),
        ("10.1.0", None, "ns.order.created.v10"),
        ("2.0.0", "orders", "orders"),
    ],
)
def test_target_topic(version: str, override: str | None, expected: str) -> None:
    """The override, else namespace, types, and the major version from 2 on (T1)."""
    assert expected == target_topic("ns", "order", "created", version, override)


def test_own_topics() -> None:
    """The namespace's own names are those of N4."""
    own = OwnTopics("ns")
    expected = {
        "ns.staging",
        "ns.staging.dlq",
        "ns.parked",
        "ns.parked.cursors",
        "ns.dlq.index",
        "ns.dlq.state",
        "ns.jobs",
        "ns.audit",
    }
    assert expected == set(own.all)
    named = {
        own.staging,
        own.staging_dlq,
        own.parked,
        own.parked_cursors,
        own.dlq_index,
        own.dlq_state,
        own.jobs,
        own.audit,
    }
    assert expected == named
    assert own.group == "ns-pipeline"


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("ns.parked", True),
        ("ns-pipeline-parked-changelog", True),
        ("ns-pipeline-__assignor-__leader", True),
        ("ns.order.created", False),
        ("other.parked", False),
    ],
)
def test_is_own(topic: str, expected: bool) -> None:
    """Our own topics are told by name, those of Faust by the group they begin with (N4)."""
    assert expected is OwnTopics("ns").is_own(topic)


@pytest.mark.parametrize("topic", ["a", "A.b_c-9", "x" * 249, "...", "a..b"])
def test_legal_topic(topic: str) -> None:
    """Kafka takes letters, digits, dot, underscore and hyphen, up to 249 characters (D2)."""
    assert topic_problem(topic) is None


@pytest.mark.parametrize("topic", ["", ".", "..", "a b", "a/b", "café", "a\n", "x" * 250])
def test_illegal_topic(topic: str) -> None:
    """What Kafka refuses is a problem (D2)."""
    assert topic_problem(topic)


@pytest.mark.parametrize("namespace", ["", ".", "-a", "a b", "é", "a\n", "x" * 101])
def test_illegal_namespace(namespace: str) -> None:
    """A namespace begins every name of ours, so it must be one that all of them can begin with (N4)."""
    assert namespace_problem(namespace)


@pytest.mark.parametrize("namespace", ["streaming", "com.acme-eu_1", "9", "x" * 100])
def test_legal_namespace(namespace: str) -> None:
    """With a legal namespace all names of ours are legal (N4)."""
    assert namespace_problem(namespace) is None
    assert [topic_problem(topic) for topic in OwnTopics(namespace).all] == [None] * 8


def test_small_names() -> None:
    """The dead-letter topic of a target, the major version, and Kafka's idea of equal names (Q1, T1, D2)."""
    assert dlq_of("a.b") == "a.b.dlq"
    assert major_of("12.0.1-rc.1") == 12
    assert collision_name("a.b_c") == collision_name("a_b.c") == "a_b_c"


@pytest.mark.parametrize("text", ["a", "é" * 5, "x" * 10, "日本語", ""])
def test_text_within_its_limit(text: str) -> None:
    """Text of up to the limit in bytes passes (S5)."""
    assert text_problem(text, 10) is None


@pytest.mark.parametrize("text", ["é" * 5 + "x", "x" * 11, "日本語日"])
def test_text_over_its_limit(text: str) -> None:
    """Limits count bytes of UTF-8, not characters (S5)."""
    assert text_problem(text, 10) == f"is {len(text.encode())} bytes long; the limit is 10"


@pytest.mark.parametrize(
    "bad", ["\x00", "\n", "\x1f", "\x7f", "\x80", "\x9f", "\ud800", "\ufdd0", "\uffff", "\U0010fffe"]
)
def test_forbidden_characters(bad: str) -> None:
    """Control characters and what else CloudEvents forbids in a String never pass, nor are repeated (S4)."""
    problem = text_problem(f"secret{bad}", 100)
    assert problem
    assert "secret" not in problem
