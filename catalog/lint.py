"""Advice on a catalog that loads: what is allowed, but will be missed later.

Owns: warnings. Must not know: rules that stop a worker; those are in `catalog.checks`.
"""

from __future__ import annotations

from collections.abc import Iterator

from catalog.errors import Problem
from catalog.registry import Catalog
from catalog.schemas import unchecked_formats


def advice(catalog: Catalog) -> list[Problem]:
    """Return what `catalog lint` should warn of, sorted by entry; the rule is always `advice`."""
    return [Problem("", key, "advice", message) for key, message in _advice(catalog)]


def _advice(catalog: Catalog) -> Iterator[tuple[str, str]]:
    for definition in catalog.definitions:
        if not definition.description:
            yield definition.key, "has no description: say what happened when this event is staged"
        if not definition.owner:
            yield definition.key, "has no owner: say whom to ask about it"
        if definition.is_json and definition.payload is None:
            yield definition.key, "has no payload model: any JSON passes"
        if not definition.examples:
            yield definition.key, "has no example: give at least one payload"
        if isinstance(definition.payload, dict):
            for name in sorted(unchecked_formats(definition.payload)):
                yield definition.key, f"uses the format {name!r}, which is not checked"
