"""What a change of the catalog breaks, and for whom: services that stage, consumers that read. Pure.

Owns: that judgement. Must not know: how two catalogs are compared, or how the answer is printed.
Compatible is what semver calls so: a schema may change where `schema_version` rises with it (D1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from catalog.export import Change, DefinitionManifest, Manifest, diff
from catalog.names import major_of

__all__ = ["Judged", "judge"]

Whom = Literal["services", "consumers"]

_SERVICES: tuple[Whom, ...] = ("services",)
_CONSUMERS: tuple[Whom, ...] = ("consumers",)
_BOTH: tuple[Whom, ...] = ("services", "consumers")
_FOLLOWS = frozenset({"dlq_topic", "policy_in_force"})
"""What follows from another field, or from the environment, is no change of its own."""

_ALWAYS: Mapping[str, tuple[tuple[Whom, ...], str]] = {
    "resource_type": (_CONSUMERS, "the CloudEvents type is another"),
    "event_type": (_CONSUMERS, "the CloudEvents type is another"),
    "topic": (_CONSUMERS, "new events no longer reach the old topic"),
    "content_type": (_CONSUMERS, "the value is encoded otherwise"),
    "system": (_CONSUMERS, "the record key is another, and so is the order; the tenant comes or goes"),
}


@dataclass(frozen=True, slots=True)
class Judged:
    """A change, whom it breaks (nobody: empty), and why."""

    change: Change
    breaks: tuple[Whom, ...] = ()
    why: str = ""


def judge(before: Manifest, after: Manifest) -> list[Judged]:
    """Every change from `before` to `after`, by key, then field, with what it breaks."""
    old = {str(item["key"]): item for item in before["definitions"]}
    new = {str(item["key"]): item for item in after["definitions"]}
    return [
        _judged(change, old.get(change.key, {}), new.get(change.key, {}))
        for change in diff(before, after)
        if change.field not in _FOLLOWS
    ]


def _judged(change: Change, old: DefinitionManifest, new: DefinitionManifest) -> Judged:
    if not change.field:
        if change.after is None:
            return Judged(change, _BOTH, "stage() refuses the key; its topic gets no new events")
        return Judged(change)
    if change.field in _ALWAYS:
        return Judged(change, *_ALWAYS[change.field])
    was, now = str(old["schema_version"]), str(new["schema_version"])
    if change.field == "schema_version":
        return _version(change, was, now)
    if change.field in {"payload", "data_schema"} and _numbers(now) <= _numbers(was):
        return Judged(change, _BOTH, f"another schema under version {now}: raise schema_version")
    if change.field == "sources":
        return _sources(change)
    if change.field == "policy" and _enabled(change.before) and not _enabled(change.after):
        return Judged(change, _SERVICES, "stage() refuses the key: enabled=false")
    return Judged(change)


def _version(change: Change, was: str, now: str) -> Judged:
    if major_of(was) != major_of(now):
        return Judged(change, _CONSUMERS, "another major version: incompatible, by semver")
    if _numbers(now) < _numbers(was):
        return Judged(change, _CONSUMERS, "the version goes back: what it had added may be missing")
    return Judged(change)


def _sources(change: Change) -> Judged:
    if not isinstance(change.after, list):
        return Judged(change)
    if not isinstance(change.before, list):
        return Judged(change, _SERVICES, f"only these may stage it now: {', '.join(map(str, change.after))}")
    gone = [str(source) for source in change.before if source not in change.after]
    return Judged(change, _SERVICES, f"may no longer stage it: {', '.join(gone)}") if gone else Judged(change)


def _numbers(version: str) -> tuple[int, ...]:
    core = version.partition("+")[0].partition("-")[0]
    return tuple(map(int, core.split(".")))


def _enabled(policy: JsonValue) -> bool:
    return isinstance(policy, dict) and policy.get("enabled") is True
