"""Definitions for tests: a sound one with any field changed, and the problems a catalog has."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pytest

from catalog.definitions import EventDefinition
from catalog.errors import CatalogError, Problem
from catalog.policies import PolicyOverride
from catalog.registry import Catalog

NONE: Mapping[str, PolicyOverride] = MappingProxyType({})


def definition(key: str = "order.created", **changes: object) -> EventDefinition:
    """Return a sound definition whose types follow from `key`, with `changes` laid over it."""
    resource_type, _, event_type = key.partition(".")
    fields = {"key": key, "resource_type": resource_type, "event_type": event_type or "happened"}
    return EventDefinition.model_validate(fields | changes)


def refused(**changes: object) -> Problem:
    """Return the one problem of a definition with these fields."""
    with pytest.raises(CatalogError) as caught:
        EventDefinition.model_validate(
            {"key": "order.created", "resource_type": "order", "event_type": "created"} | changes
        )
    (problem,) = caught.value.problems
    return problem


def catalog_of(
    *definitions: EventDefinition,
    namespace: str = "streaming",
    policies: Mapping[str, PolicyOverride] = NONE,
) -> Catalog:
    """Return the catalog of these definitions, each in a file named after its place: `1.toml`."""
    files = [f"{number}.toml" for number in range(1, len(definitions) + 1)]
    return Catalog(definitions, namespace=namespace, policies=policies, files=files)


def problems_of(
    *definitions: EventDefinition,
    namespace: str = "streaming",
    policies: Mapping[str, PolicyOverride] = NONE,
) -> list[Problem]:
    """Return every problem these definitions have together."""
    with pytest.raises(CatalogError) as caught:
        catalog_of(*definitions, namespace=namespace, policies=policies)
    return list(caught.value.problems)
