"""`faust -A pipeline catalog ...` through the real command line, without a broker (O2, D2)."""

from __future__ import annotations

import json
from pathlib import Path

from catalog import load
from catalog.export import manifest
from tests.cli.command_line import ROOT, Call, catalog_folder, run, run_all

ORDER = {"key": "order.created", "resource_type": "order", "event_type": "created"}
SCHEMA = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}
SOUND = {**ORDER, "description": "x", "owner": "y", "payload": SCHEMA, "examples": [{"number": 1}]}


def test_a_bad_catalog(tmp_path: Path) -> None:
    """It stops the worker and fails `catalog lint`; both list every wrong entry with file, entry and rule (D2, O2)."""
    catalog_folder(tmp_path, {**ORDER, "key": "order.sent", "event_type": "Sent"}, file="a.toml")
    again = {**ORDER, "event_type": "again"}
    bad = catalog_folder(tmp_path, ORDER, again, {"key": "order.no_type"}, file="b.toml")
    settings = {"CATALOG": bad, "EVENT_POLICIES": "order.paid.dlq=never"}
    lint, worker = run_all(
        Call(("catalog", "lint", "--json"), settings), Call(("worker", "-l", "info"), settings)
    )
    document = lint.document
    found = {(Path(item["file"]).name, item["entry"], item["rule"]) for item in document["problems"]}
    assert found == {
        ("a.toml", "order.sent", "D2"),
        ("b.toml", "order.created", "D2"),
        ("b.toml", "order.no_type", "D1"),
        ("STREAMING_EVENT_POLICIES", "order.paid", "D5"),
    }
    assert all(item["message"] for item in document["problems"])
    assert (document["ok"], document["catalog"], document["fingerprint"]) == (False, bad, None)
    assert (lint.status, lint.err) == (1, "")

    assert (worker.status, worker.out) == (1, "")
    assert "Traceback" not in worker.err
    assert all(f"{file}: entry {entry!r}: {rule}" in worker.err for file, entry, rule in found)


def test_lint_advice(tmp_path: Path) -> None:
    """Advice alone leaves the exit status 0, unless `--strict` (O2)."""
    settings = {"CATALOG": catalog_folder(tmp_path, {**SOUND, "owner": ""})}
    plain, strict = run_all(
        Call(("catalog", "lint"), settings), Call(("catalog", "lint", "--strict", "--json"), settings)
    )
    assert (plain.status, plain.err) == (0, "")
    assert plain.row("-")[:3] == ["-", "order.created", "advice"]
    assert "0 problems, 1 piece of advice; 1 definition" in plain.out
    (hint,) = strict.document["advice"]
    assert (hint["entry"], hint["rule"]) == ("order.created", "advice")
    assert (strict.status, strict.document["ok"], strict.document["problems"]) == (1, False, [])


def test_show(tmp_path: Path) -> None:
    """`catalog show` tells topics, dead letters, and for each policy field the layer that set it (O2, D4)."""
    catalog = catalog_folder(tmp_path, {**SOUND, "policy": {"outbox": "always", "dlq": "never"}})
    policies = "order.created.dlq=on_routable_failure"
    settings = {"CATALOG": catalog, "NAMESPACE": "shop", "EVENT_POLICIES": policies}
    shown = run("--json", "catalog", "show", **settings)  # Faust's own --json counts as well
    (item,) = shown.document["definitions"]
    assert shown.status == 0
    assert (item["topic"], item["dlq_topic"]) == ("shop.order.created", "shop.order.created.dlq")
    assert item["policy_in_force"]["dlq"] == "on_routable_failure"
    assert item["policy_layers"] == {
        "enabled": "default",
        "direct": "default",
        "outbox": "definition",
        "dlq": "environment",
    }


def test_diff_and_export(tmp_path: Path) -> None:
    """`catalog diff` exits with 1 where something breaks; `catalog export` writes the manifest (O2)."""
    paid = {**SOUND, "key": "order.paid", "event_type": "paid"}
    before = catalog_folder(tmp_path / "before", SOUND, paid)
    after = catalog_folder(tmp_path / "after", {**SOUND, "topic": "orders"})
    # An override of the definition that goes must not hide what its going breaks.
    policies = "order.paid.enabled=false"
    settings = {"CATALOG": before, "EVENT_POLICIES": policies}
    diff, exported = run_all(
        Call(("catalog", "diff", "--json", after), settings), Call(("catalog", "export"), settings)
    )
    assert (diff.status, diff.document["ok"]) == (1, False)
    assert [(change["key"], change["field"], change["breaks"]) for change in diff.document["changes"]] == [
        ("order.created", "topic", ["consumers"]),
        ("order.paid", "", ["services", "consumers"]),
    ]
    expected = manifest(load(before, namespace="streaming", policies=policies))
    assert (exported.status, exported.document) == (0, json.loads(json.dumps(expected)))


def test_diff_with_nothing_says_which_name_is_wrong(tmp_path: Path) -> None:
    """D2, O2: where OTHER is no catalog, the error names that argument and not STREAMING_CATALOG, which is right."""
    loaded = {"CATALOG": catalog_folder(tmp_path, SOUND)}
    wrong = ("no_such_module", str(tmp_path / "no-such-folder"), "")
    for answer in run_all(*(Call(("catalog", "diff", other), loaded) for other in wrong)):
        assert (answer.status, answer.out) == (1, "")
        assert "the argument OTHER" in answer.err
        assert "STREAMING_CATALOG" not in answer.err


def test_export_for_other_programs(tmp_path: Path) -> None:
    """`catalog export --format` writes an AsyncAPI document or lib-streaming's manifest, with the settings' own prefix,
    dialect and source (O2)."""
    settings = {
        "CATALOG": catalog_folder(tmp_path, SOUND),
        "TYPE_PREFIX": "com.shop",
        "CLOUDEVENTS_DIALECT": "ce-",
        "CLIENT_ID": "shop",
    }
    described, published, wrong = run_all(
        Call(("catalog", "export", "--format", "asyncapi"), settings),
        Call(("catalog", "export", "--format", "introspection", "--json"), settings),
        Call(("catalog", "export", "--format", "yaml"), settings),
    )
    assert (described.status, published.status, wrong.status) == (0, 0, 2)
    assert described.document["asyncapi"] == "3.0.0"
    headers = described.document["components"]["messages"]["order.created"]["headers"]["properties"]
    assert headers["ce-type"]["const"] == "com.shop.order.created"
    assert published.document["publisher"]["serviceName"] == "shop"
    assert [event["key"] for event in published.document["events"]] == ["order.created"]


def test_what_cannot_start_says_why(tmp_path: Path) -> None:
    """Bad settings, or a foreign `agents` in the place of ours, end any command with the plain message and exit
    status 1 (E, N1)."""
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").touch()
    settings, clash = run_all(
        Call(("catalog", "lint"), {"BROKERS": "nowhere", "LINGER_MS": "5"}),
        Call(("worker",), {}, cwd=tmp_path, path=f"{tmp_path}:{ROOT}"),
    )
    for answer, words in (
        (settings, "STREAMING_BROKERS"),
        (settings, "STREAMING_LINGER_MS"),
        (clash, f"'agents' found at {tmp_path}"),
    ):
        assert (answer.status, answer.out) == (1, "")
        assert words in answer.err
        assert "Traceback" not in answer.err
