"""A catalog as plain data, to publish and to compare (`catalog export`, `catalog show`, `catalog diff`).

Owns: the manifest's form and what counts as a difference. Must not know: how it is printed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Final, TypedDict

from pydantic import JsonValue

from catalog.definitions import EventDefinition
from catalog.names import dlq_of
from catalog.registry import Catalog, canonical

MANIFEST_VERSION: Final = 1

DefinitionManifest = dict[str, JsonValue]


class Manifest(TypedDict):
    """A whole catalog as JSON. `definitions` are sorted by key."""

    version: int
    namespace: str
    fingerprint: str
    definitions: list[DefinitionManifest]


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: of a field of definition `key`, or of the whole one where `field` is empty."""

    key: str
    field: str
    before: JsonValue
    after: JsonValue


def manifest(catalog: Catalog) -> Manifest:
    """Return all there is to know of `catalog`, the policies in force included, as JSON values."""
    return {
        "version": MANIFEST_VERSION,
        "namespace": catalog.namespace,
        "fingerprint": catalog.fingerprint,
        "definitions": [describe(catalog, definition) for definition in catalog],
    }


def describe(catalog: Catalog, definition: EventDefinition) -> DefinitionManifest:
    """Return one definition as JSON values, with its topics and the policy in force."""
    topic = catalog.topic(definition.key)
    return {
        **canonical(definition),
        "payload": definition.payload_schema,
        "topic": topic,
        "dlq_topic": dlq_of(topic),
        "policy_in_force": asdict(catalog.policy(definition.key)),
        "description": definition.description,
        "owner": definition.owner,
        "examples": list(definition.examples),
    }


def diff(before: Manifest, after: Manifest) -> list[Change]:
    """Return how two manifests differ, by key, then field; an empty list where they do not."""
    return list(_changes(before, after))


def _changes(before: Manifest, after: Manifest) -> Iterator[Change]:
    old, new = _by_key(before), _by_key(after)
    for key in sorted(old.keys() | new.keys()):
        if key not in new:
            yield Change(key, "", old[key], None)
        elif key not in old:
            yield Change(key, "", None, new[key])
        else:
            for field in sorted(old[key].keys() | new[key].keys()):
                was, now = old[key].get(field), new[key].get(field)
                if was != now:
                    yield Change(key, field, was, now)


def _by_key(of: Manifest) -> dict[str, DefinitionManifest]:
    return {str(definition["key"]): definition for definition in of["definitions"]}
