"""What the commands decide and print, in this process: judgements, topic rules, tables (O2, D4, N4)."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from catalog import Catalog, CatalogError, EventDefinition, OwnTopics
from catalog.errors import Problem
from catalog.export import manifest
from catalog.policies import PolicyOverride
from pipeline.cli.breaks import judge
from pipeline.cli.catalog_commands import diff_report, lint_refused, lint_report, show_report
from pipeline.cli.command import table
from pipeline.cli.topic_commands import check_report, create_report
from pipeline.cli.topic_rules import TopicProblem, needed_topics, problems_of, specs_to_create
from pipeline.kafka.topics import TopicSpecs, TopicState
from pipeline.settings import Settings

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
OTHER_SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
WORKED_OUT: Mapping[str, object] = {"schema_version": "1.9.0", "payload": SCHEMA, "sources": ["/a", "/b"]}

SETTINGS = Settings(
    brokers=("127.0.0.1:1",), catalog="x", cloudevents_source="/x", namespace="ns", topic_partitions=3
)
OWN = OwnTopics("ns")
ROOMY = 2_000_000


def _catalog(
    *definitions: Mapping[str, object], policies: Mapping[str, PolicyOverride] | None = None
) -> Catalog:
    """A catalog of orders, each definition the usual one with its changes."""
    base = {"key": "order.created", "resource_type": "order", "event_type": "created"}
    items = [EventDefinition.model_validate({**base, **changes}) for changes in definitions]
    return Catalog(items, namespace="ns", policies=policies or {})


@pytest.mark.parametrize(
    ("before", "after", "broken"),
    [
        ({}, {"event_type": "made"}, {"event_type": "consumers", "topic": "consumers"}),
        ({"topic": "t"}, {"topic": "t", "resource_type": "cart"}, {"resource_type": "consumers"}),
        ({}, {"topic": "orders"}, {"topic": "consumers"}),
        ({}, {"content_type": "text/plain"}, {"content_type": "consumers"}),
        ({}, {"system": True}, {"system": "consumers"}),
        ({}, {"schema_version": "2.0.0"}, {"schema_version": "consumers", "topic": "consumers"}),
        ({}, {"schema_version": "0.9.0"}, {"schema_version": "consumers"}),
        (WORKED_OUT, {**WORKED_OUT, "schema_version": "1.8.10"}, {"schema_version": "consumers"}),
        (WORKED_OUT, {**WORKED_OUT, "schema_version": "1.10.0"}, {}),
        (WORKED_OUT, {**WORKED_OUT, "payload": OTHER_SCHEMA}, {"payload": "services, consumers"}),
        (WORKED_OUT, {**WORKED_OUT, "payload": OTHER_SCHEMA, "schema_version": "1.10.0"}, {}),
        (
            WORKED_OUT,
            {**WORKED_OUT, "payload": OTHER_SCHEMA, "schema_version": "1.9.0+build"},
            {"payload": "services, consumers"},
        ),
        ({}, {"data_schema": "urn:x"}, {"data_schema": "services, consumers"}),
        (WORKED_OUT, {**WORKED_OUT, "sources": ["/b"]}, {"sources": "services"}),
        (WORKED_OUT, {**WORKED_OUT, "sources": ["/a", "/b", "/c"]}, {}),
        (WORKED_OUT, {**WORKED_OUT, "sources": None}, {}),
        ({}, {"sources": ["/a"]}, {"sources": "services"}),
        ({}, {"policy": {"enabled": False}}, {"policy": "services"}),
        ({"policy": {"enabled": False}}, {"policy": {"enabled": False, "dlq": "never"}}, {}),
        ({}, {"policy": {"outbox": "always"}}, {}),
        ({}, {"description": "x", "owner": "y", "examples": [1]}, {}),
    ],
)
def test_what_a_change_breaks(
    before: Mapping[str, object], after: Mapping[str, object], broken: Mapping[str, str]
) -> None:
    """A changed type, topic, encoding or schema breaks whom it says; what semver or order allows breaks nobody (O2)."""
    judged = judge(manifest(_catalog(before)), manifest(_catalog(after)))
    assert judged, "there is a change"
    assert {item.change.field: ", ".join(item.breaks) for item in judged if item.breaks} == broken
    assert all(item.why for item in judged if item.breaks)


def test_diff_says_what_is_there_and_what_is_not() -> None:
    """Additions break nobody; a policy of the environment is no difference of catalogs (O2)."""
    paid = {"key": "order.paid", "event_type": "paid"}
    one = _catalog({}, policies={"order.created": PolicyOverride(enabled=False)})
    added = diff_report(one, _catalog({}, paid))
    assert added.done
    assert added.text.splitlines()[1].split() == ["order.paid", "-", "-", "added", "-", "-"]
    assert added.text.endswith("\n\n1 change, 0 of them breaking")
    removed = diff_report(_catalog({}, paid), one)
    assert not removed.done
    assert removed.text.splitlines()[1].split()[:5] == ["order.paid", "-", "defined", "-", "services,"]
    same = diff_report(one, _catalog({}))
    assert (same.done, same.text) == (True, "no difference")
    wide = diff_report(one, _catalog({"payload": {"description": "x" * 200, **SCHEMA}}))
    assert max(map(len, wide.text.splitlines())) < 200


def test_show_names_the_layer_of_each_field() -> None:
    """Each policy field stands with the layer that set it: the default, the definition, the environment (D4)."""
    overrides = {"order.created": PolicyOverride(outbox="always", direct="direct")}
    items = _catalog({"policy": {"outbox": "always", "dlq": "never"}}, policies=overrides)
    one = show_report(items, overrides, "order.created").text
    assert [line.split()[1:] for line in one.splitlines() if line.startswith("policy ")] == [
        ["enabled=true", "(default)"],
        ["direct=direct", "(environment)"],
        ["outbox=always", "(environment)"],
        ["dlq=never", "(definition)"],
    ]
    row = show_report(items, overrides, None).text.splitlines()[1]
    assert row.split()[2:4] == ["ns.order.created", "ns.order.created.dlq"]
    assert row.endswith("direct=direct (environment), outbox=always (environment), dlq=never (definition)")
    assert show_report(_catalog({}), {}, None).text.endswith("all default")


def test_lint_answers_for_a_catalog_that_cannot_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    """`catalog lint` of a bad catalog prints a row for each problem and exits with 1; other commands are left to
    fail (D2, O2)."""
    error = CatalogError([Problem("a.toml", "x", "D2", "wrong\nhere"), Problem("", "", "N4", "worse")])
    with pytest.raises(SystemExit) as ended:
        lint_refused("folder", error, ["faust", "-A", "pipeline", "catalog", "lint"])
    assert ended.value.code == 1
    assert capsys.readouterr().out.splitlines() == [
        "FILE    ENTRY  RULE  MESSAGE",
        "a.toml  x      D2    wrong here",
        "-       -      N4    worse",
        "",
        "folder: 2 problems, 0 pieces of advice",
    ]
    lint_refused("folder", error, ["faust", "-A", "pipeline", "worker"])
    lint_refused("folder", error, ["faust", "-A", "pipeline", "catalog", "show", "lint"])
    assert capsys.readouterr().out == ""
    assert not lint_report("folder", error.problems, (), strict=False).done


def test_table() -> None:
    """Columns are aligned, nothing trails, and a cell stays on its line."""
    assert table(("A", "B"), [("long", None), ("x", "a\nb ")]) == "A     B\nlong  -\nx     a b"


REDRIVE = ("dlq.index", "dlq.state", "jobs")
PARKED = ("parked", "parked.cursors")


def _problems(
    states: Mapping[str, TopicState], *definitions: Mapping[str, object]
) -> dict[str, list[TopicProblem]]:
    """What is wrong with which topic."""
    needed = needed_topics(_catalog(*definitions), OWN, TopicSpecs(SETTINGS))
    found = {item.name: problems_of(item, states, OWN.staging, SETTINGS.topic_partitions) for item in needed}
    return {name: problems for name, problems in found.items() if problems}


def _states(**partitions: int) -> dict[str, TopicState]:
    """Every topic of one definition, of three partitions or as many as is said, with room for any record."""
    names = ("staging", "staging.dlq", "audit", *REDRIVE, *PARKED, "order.created", "order.created.dlq")
    return {f"ns.{name}": TopicState(partitions.get(name.replace(".", "_"), 3), ROOMY) for name in names}


def test_which_topics_are_needed_where() -> None:
    """Own topics and dead letters are on BROKERS, targets alone on TARGET_BROKERS; a shared topic counts once (N4)."""
    shared = {"key": "order.paid", "event_type": "paid", "topic": "orders"}
    catalog = _catalog({"topic": "orders"}, shared)
    needed = needed_topics(catalog, OWN, TopicSpecs(SETTINGS))
    assert [(item.name, item.servers) for item in needed] == [
        ("ns.staging", "BROKERS"),
        ("ns.staging.dlq", "BROKERS"),
        ("ns.audit", "BROKERS"),
        *((f"ns.{name}", "BROKERS") for name in (*REDRIVE, *PARKED)),
        ("orders", "TARGET_BROKERS"),
        ("orders.dlq", "BROKERS"),
    ]


@pytest.mark.parametrize(
    ("partitions", "topic", "way_out"),
    [
        (
            {"staging": 4, "staging_dlq": 4, "parked": 4, "parked_cursors": 4},
            "ns.staging",
            "STREAMING_TOPIC_PARTITIONS=4",
        ),
        ({"staging_dlq": 4}, "ns.staging.dlq", "delete it"),
        ({"parked": 2}, "ns.parked", "--topic ns.parked --partitions 3"),
        ({"order_created_dlq": 2}, "ns.order.created.dlq", "--topic ns.order.created.dlq --partitions 3"),
        ({"order_created": 7, "order_created_dlq": 8}, "ns.order.created.dlq", "delete it"),
    ],
)
def test_partition_counts(partitions: Mapping[str, int], topic: str, way_out: str) -> None:
    """Staging keeps its count, dead letters have that of their target; the way out is told (N4, Q1)."""
    found = _problems(_states(**partitions), {})
    assert found.keys() == {topic}
    assert way_out in found[topic][0].way_out


def test_counts_that_are_free() -> None:
    """Audit may have any count, and so may a target, if its dead letters have the same (Q1)."""
    assert not _problems(_states(audit=9, order_created=7, order_created_dlq=7), {})


def test_record_sizes() -> None:
    """Staging and targets take MAX_RECORD_BYTES and framing, dead letters and audit 64 KiB more (S5)."""
    least = SETTINGS.max_record_bytes + 8_192
    enough = {name: TopicState(3, least + 65_536) for name in _states()}
    assert not _problems(enough, {})
    tight = {name: TopicState(3, least) for name in enough}
    more = (f"ns.{name}" for name in (*REDRIVE, *PARKED))
    roomier = {"ns.staging.dlq", "ns.audit", "ns.order.created.dlq", *more}
    assert _problems(tight, {}).keys() == roomier
    small = {name: TopicState(3, least - 1) for name in enough}
    found = _problems(small, {})
    assert found.keys() == small.keys()
    assert f"max.message.bytes={least};" in found["ns.staging"][0].way_out


def test_created_dead_letters_have_the_count_of_their_target() -> None:
    """A topic is created like the one it belongs to, where that exists; an existing one is never created (Q1)."""
    needed = needed_topics(_catalog({}), OWN, TopicSpecs(SETTINGS))
    states = {"ns.staging": TopicState(5, ROOMY), "ns.order.created": TopicState(7, ROOMY)}
    specs = specs_to_create(needed, states)
    assert {name: spec.partitions for name, spec in specs.items()} == {
        "ns.staging.dlq": 5,
        "ns.audit": 5,
        "ns.dlq.index": 5,
        "ns.dlq.state": 5,
        "ns.jobs": 1,
        "ns.parked": 5,
        "ns.parked.cursors": 5,
        "ns.order.created.dlq": 7,
    }
    counts = {name: spec.partitions for name, spec in specs_to_create(needed, {}).items()}
    assert (counts.pop("ns.jobs"), set(counts.values())) == (1, {3})


def test_reports_on_topics() -> None:
    """`create` has done its work once all exist, whatever they are like; `check` once nothing is wrong (O2)."""
    needed = needed_topics(_catalog({}), OWN, TopicSpecs(SETTINGS))
    specs = specs_to_create(needed, {})
    partly = create_report(needed, specs, ["ns.audit"], ["ns.audit: no"])
    assert not partly.done
    assert partly.text.endswith("ns.audit: no\n9 created, 0 existed already, 1 missing")
    assert ["ns.audit", "3", "missing"] in map(str.split, partly.text.splitlines())
    assert create_report(needed, {}, [], []).done
    well = check_report(needed, _states(), OWN.staging, 3)
    assert (well.done, well.text.splitlines()[-1]) == (True, "10 topics, 0 of them not as they must be")
