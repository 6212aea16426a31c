"""What is staged under fire: plain events, one that goes through the outbox always, and two that can be poison."""

from __future__ import annotations

from catalog import DeliveryPolicy, EventDefinition

PLAIN = 4
KEYS = (*(f"chaos.e{number}" for number in range(PLAIN)), "chaos.always")
"""What the services stage."""
_SCHEMA = {"type": "object", "required": ["n"]}

DEFINITIONS = (
    *(
        EventDefinition(key=f"chaos.e{number}", resource_type="chaos", event_type=f"e{number}")
        for number in range(PLAIN)
    ),
    EventDefinition(
        key="chaos.always",
        resource_type="chaos",
        event_type="always",
        policy=DeliveryPolicy(outbox="always"),
    ),
    EventDefinition(key="chaos.strict", resource_type="chaos", event_type="strict", payload=_SCHEMA),
    EventDefinition(
        key="chaos.hint",
        resource_type="chaos",
        event_type="hint",
        payload=_SCHEMA,
        policy=DeliveryPolicy(dlq="never"),
    ),
)
