"""Fifty definitions, each with a topic of its own."""

from __future__ import annotations

from catalog import EventDefinition

DEFINITIONS = tuple(
    EventDefinition(key=f"thing.e{number}", resource_type="thing", event_type=f"e{number}")
    for number in range(50)
)
