"""`faust -A pipeline catalog lint|show|diff|export`: the catalog, looked at. Reaches no broker (O2, D2).

Owns: the four commands and their two forms of answer. Must not know: rules of the catalog, or what breaks whom.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise

from click import Choice
from faust.cli import argument, option

from catalog import Catalog, CatalogError, EventDefinition, load
from catalog.asyncapi import asyncapi
from catalog.errors import Problem
from catalog.export import describe, manifest
from catalog.introspection import introspection
from catalog.layers import Layer, policy_layers
from catalog.lint import advice
from catalog.names import dlq_of
from catalog.policies import PolicyOverride, parse_policies
from pipeline.application import Application
from pipeline.cli.breaks import Judged, judge
from pipeline.cli.command import Report, Subcommand, add_group, as_json, table
from pipeline.release import release
from pipeline.settings import Settings

__all__ = ["diff_report", "lint_refused", "lint_report", "register", "show_report"]

Overrides = Mapping[str, PolicyOverride]

_CELL_CHARS = 40


def register(application: Application) -> None:
    """Put the commands on Faust's command line."""
    add = add_group(application, "catalog", "Look at the catalog; reaches no broker.")
    add(lint, option("--strict", is_flag=True, help="Advice counts as a problem."))
    add(show, argument("key", required=False))
    add(diff, argument("other"))
    forms = Choice(["manifest", "introspection", "asyncapi"])
    add(
        export,
        option("--format", "form", type=forms, default="manifest", show_default=True, help="Which form."),
    )


# --- lint


async def lint(self: Subcommand, *, strict: bool) -> Report:
    """List problems and advice.

    Every problem comes with file, entry and rule. Exit status 1 where there is one, and with --strict also
    where there is advice.
    """
    items = self.application.catalog
    return lint_report(self.application.settings.catalog, (), advice(items), strict=strict, catalog=items)


def lint_refused(source: str, error: CatalogError, argv: Sequence[str]) -> None:
    """Where the command line asks for `catalog lint`, answer it for a catalog that cannot be used, and exit.

    Faust wants an app before it looks at commands, and a bad catalog makes none: so the words of the command
    line are looked at here, as Faust itself does for `-A`. Returns where they ask for something else.
    """
    if ("catalog", "lint") not in pairwise(argv) or "--help" in argv:
        return
    report = lint_report(source, error.problems, (), strict=False)
    sys.stdout.write((as_json(report.document) if "--json" in argv else report.text) + "\n")
    raise SystemExit(1)


def lint_report(
    source: str,
    problems: Sequence[Problem],
    hints: Sequence[Problem],
    *,
    strict: bool,
    catalog: Catalog | None = None,
) -> Report:
    """The answer of `catalog lint`; `catalog` is None where the problems leave none."""
    ok = not problems and not (strict and hints)
    document = {
        "catalog": source,
        "ok": ok,
        "definitions": None if catalog is None else len(catalog),
        "fingerprint": None if catalog is None else catalog.fingerprint,
        "problems": [asdict(problem) for problem in problems],
        "advice": [asdict(hint) for hint in hints],
    }
    found = [(item.file or None, item.entry or None, item.rule, item.message) for item in (*problems, *hints)]
    summary = f"{source}: {_count(problems, 'problem')}, {len(hints)} piece{'' if len(hints) == 1 else 's'} of advice"
    if catalog is not None:
        summary += f"; {_count(catalog, 'definition')}, fingerprint {catalog.fingerprint}"
    lines = [table(("FILE", "ENTRY", "RULE", "MESSAGE"), found), ""] if found else []
    return Report(document, "\n".join([*lines, summary]), ok)


# --- show


async def show(self: Subcommand, *, key: str | None) -> Report:
    """Show all definitions, or one in full.

    With topics, and the delivery policy with the layer that set each field: default, definition, or
    environment (STREAMING_EVENT_POLICIES).
    """
    application = self.application
    return show_report(application.catalog, parse_policies(application.settings.event_policies), key)


def show_report(catalog: Catalog, overrides: Overrides, key: str | None) -> Report:
    """The answer of `catalog show`. Raises `UnknownDefinition`."""
    shown = catalog.definitions if key is None else (catalog.require(key),)
    definitions = [
        {**describe(catalog, item), "policy_layers": policy_layers(item, overrides.get(item.key))}
        for item in shown
    ]
    document = {
        "namespace": catalog.namespace,
        "fingerprint": catalog.fingerprint,
        "definitions": definitions,
    }
    text = _table_of(catalog, overrides) if key is None else _one(catalog, shown[0], overrides.get(key))
    return Report(document, text, done=True)


def _table_of(catalog: Catalog, overrides: Overrides) -> str:
    rows = []
    for item in catalog:
        topic = catalog.topic(item.key)
        policy = _policy(catalog, item, overrides.get(item.key))
        unusual = [text for text, layer in policy if layer != "default"]
        rows.append(
            (item.key, item.schema_version, topic, dlq_of(topic), ", ".join(unusual) or "all default")
        )
    return table(("KEY", "VERSION", "TOPIC", "DEAD LETTERS", "POLICY"), rows)


def _one(catalog: Catalog, item: EventDefinition, override: PolicyOverride | None) -> str:
    topic = catalog.topic(item.key)
    rows: list[tuple[str, object]] = [
        ("description", item.description or None),
        ("owner", item.owner or None),
        ("type", f"{item.resource_type}.{item.event_type}"),
        ("version", item.schema_version),
        ("content type", item.content_type),
        ("data schema", item.data_schema),
        ("payload", "any" if item.payload is None else "checked by JSON Schema, see --json"),
        ("system event", "yes" if item.system else "no"),
        ("staged by", "anyone" if item.sources is None else ", ".join(item.sources)),
        ("topic", topic),
        ("dead letters", dlq_of(topic)),
        *(("policy", text) for text, _ in _policy(catalog, item, override)),
    ]
    return table((item.key, ""), rows)


def _policy(
    catalog: Catalog, item: EventDefinition, override: PolicyOverride | None
) -> list[tuple[str, Layer]]:
    in_force = asdict(catalog.policy(item.key))
    return [
        (f"{name}={str(in_force[name]).lower()} ({layer})", layer)
        for name, layer in policy_layers(item, override).items()
    ]


# --- diff


async def diff(self: Subcommand, *, other: str) -> Report:
    """Say what OTHER would break.

    Compares the loaded catalog with OTHER, a module or folder that is to take its place: what breaks for
    services that stage, and for consumers. Exit status 1 where something does. The policies of the
    environment belong to neither and are left out.
    """
    loaded = self.application.catalog
    return diff_report(loaded, load(other, namespace=loaded.namespace, named_by="the argument OTHER"))


def diff_report(before: Catalog, after: Catalog) -> Report:
    """The answer of `catalog diff`."""
    judged = judge(manifest(before), manifest(after))
    broken = [item for item in judged if item.breaks]
    document = {
        "ok": not broken,
        "before": before.fingerprint,
        "after": after.fingerprint,
        "changes": [{**asdict(item.change), "breaks": item.breaks, "why": item.why} for item in judged],
    }
    summary = f"{_count(judged, 'change')}, {len(broken)} of them breaking" if judged else "no difference"
    headers = ("KEY", "FIELD", "BEFORE", "AFTER", "BREAKS", "WHY")
    lines = [table(headers, [_row(item) for item in judged]), ""] if judged else []
    return Report(document, "\n".join([*lines, summary]), not broken)


def _row(item: Judged) -> tuple[object, ...]:
    change = item.change
    if change.field:
        ends = (_short(change.before), _short(change.after))
    else:
        ends = (None, "added") if change.before is None else ("defined", None)
    return (change.key, change.field or None, *ends, ", ".join(item.breaks) or None, item.why or None)


def _short(value: object) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else as_json(value)
    return text if len(text) <= _CELL_CHARS else text[: _CELL_CHARS - 3] + "..."


# --- export


async def export(self: Subcommand, *, form: str) -> Report:
    """Write the catalog for other programs, as JSON.

    Every definition with its topics and the policy in force (manifest); as the manifest that lib-streaming services
    publish (introspection); as an AsyncAPI 3.0 document (asyncapi). Indented, or with --json on one line.
    """
    application = self.application
    published = exported(application.catalog, application.settings, form)
    return Report(published, as_json(published, indent=2), done=True)


def exported(catalog: Catalog, settings: Settings, form: str) -> object:
    """The catalog in one of its three published forms."""
    if form == "introspection":
        return introspection(
            catalog,
            service=settings.client_id,
            source=settings.cloudevents_source,
            outbox_supported=bool(settings.outbox_dir),
            library_version=release(),
        )
    if form == "asyncapi":
        prefix = settings.effective_type_prefix
        return asyncapi(catalog, type_prefix=prefix, prefix=settings.cloudevents_dialect)
    return manifest(catalog)


def _count(items: Sequence[object] | Catalog, what: str) -> str:
    return f"{len(items)} {what}{'' if len(items) == 1 else 's'}"
