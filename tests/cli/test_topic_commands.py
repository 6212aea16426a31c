"""`faust -A pipeline topics create|check` through the real command line, against a real Kafka (O2, N4)."""

from __future__ import annotations

from pathlib import Path

import pytest

from devtools.kafka import Brokers
from tests.cli.command_line import Answer, Call, catalog_folder, run, run_all
from tests.kafka_client import create_topic, partition_count


def _problems(answer: Answer) -> dict[str, list[tuple[str, str]]]:
    """Kind of problem and way out, by the topic's name without its namespace."""
    return {
        topic["topic"].partition(".")[2]: [(item["kind"], item["way_out"]) for item in topic["problems"]]
        for topic in answer.document["topics"]
        if topic["problems"]
    }


@pytest.mark.kafka
def test_create_then_check(kafka: Brokers, namespace: str, tmp_path: Path) -> None:
    """`topics create` creates what is missing and changes nothing; `check` names every topic that is not as it must
    be, with the way out (O2, N4, Q1, S5)."""
    kinds = ({"key": name, "resource_type": "order", "event_type": name} for name in ("new", "old", "two"))
    settings = {
        "BROKERS": kafka.bootstrap,
        "NAMESPACE": namespace,
        "CATALOG": catalog_folder(tmp_path, *kinds),
        "TOPIC_PARTITIONS": "3",
    }
    # Two targets and a dead-letter topic exist already, none of them as `create` would make it.
    create_topic(kafka.bootstrap, f"{namespace}.order.old", 2, {"max.message.bytes": "500000"})
    create_topic(kafka.bootstrap, f"{namespace}.order.two", 2)
    create_topic(kafka.bootstrap, f"{namespace}.order.two.dlq", 5, {"max.message.bytes": "2000000"})

    before = run("topics", "check", "--json", **settings)
    assert (before.status, before.document["ok"]) == (1, False)
    others = {"dlq.index", "dlq.state", "jobs", "parked", "parked.cursors"}
    missing = {"staging", "staging.dlq", "audit", *others, "order.new", "order.new.dlq", "order.old.dlq"}
    problems = _problems(before)
    assert {name for name, found in problems.items() if found[0][0] == "missing"} == missing
    assert "topics create" in problems["staging"][0][1]

    created = run("topics", "create", "--json", **settings)
    assert (created.status, created.document["ok"]) == (0, True), created.err
    assert set(created.document["created"]) == {f"{namespace}.{name}" for name in missing}
    assert set(created.err.splitlines()) == {f"creating {namespace}.{name}" for name in missing}
    counts = {
        name: partition_count(kafka.bootstrap, f"{namespace}.{name}") for name in (*missing, "order.old")
    }
    assert counts == {
        "staging": 3,
        "staging.dlq": 3,
        "audit": 3,
        "dlq.index": 3,
        "dlq.state": 3,
        "jobs": 1,
        "parked": 3,
        "parked.cursors": 3,
        "order.new": 3,
        "order.new.dlq": 3,
        "order.old": 2,
        "order.old.dlq": 2,  # as many as its target has
    }

    again, check = run_all(
        Call(("topics", "create"), settings),
        Call(("topics", "check"), settings | {"TOPIC_PARTITIONS": "6"}),
    )
    assert (again.status, again.out) == (0, "0 created, 14 existed already, 0 missing\n")
    assert check.status == 1
    assert check.out.endswith("\n14 topics, 3 of them not as they must be\n")
    _, count, message, way_out = check.row(f"{namespace}.staging")
    assert (count, "STREAMING_TOPIC_PARTITIONS says 6" in message) == ("3", True)
    assert "set STREAMING_TOPIC_PARTITIONS=3" in way_out
    assert "another STREAMING_NAMESPACE" in way_out
    assert "max.message.bytes=1048192" in check.row(f"{namespace}.order.old")[3]
    assert "delete it" in check.row(f"{namespace}.order.two.dlq")[3]
    assert check.row(f"{namespace}.order.new")[1:] == ["3", "ok"]


@pytest.mark.kafka
def test_refusals(kafka: Brokers, namespace: str, tmp_path: Path) -> None:
    """What the brokers refuse, or where none answers, is told plainly, and the exit status is 1 (O2)."""
    many = [{"key": f"e{number}", "resource_type": "e", "event_type": f"e{number}"} for number in range(21)]
    settings = {"BROKERS": kafka.bootstrap, "NAMESPACE": namespace}
    # More topics than are created at once.
    refusing = settings | {"TOPIC_REPLICATION": "99", "CATALOG": catalog_folder(tmp_path, *many)}
    refused, nobody = run_all(
        Call(("topics", "create", "--json"), refusing),
        Call(("topics", "check", "--json"), settings | {"TARGET_BROKERS": "127.0.0.1:1"}),
    )
    assert (refused.status, refused.document["ok"], refused.document["created"]) == (1, False, [])
    assert len(refused.document["missing"]) == len(refused.document["refused"]) == 8 + 2 * 21
    assert all("InvalidReplicationFactor" in reason for reason in refused.document["refused"])
    assert (nobody.status, nobody.out) == (1, "")
    assert "STREAMING_TARGET_BROKERS (127.0.0.1:1)" in nobody.err
    assert "Traceback" not in nobody.err
