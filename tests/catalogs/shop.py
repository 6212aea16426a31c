"""A shop: one definition for each thing that a definition can be. Workers of tests run on it too."""

from __future__ import annotations

from catalog import EventDefinition

DEFINITIONS = (
    EventDefinition(key="order.created", resource_type="order", event_type="created"),
    EventDefinition(
        key="order.created@2",
        resource_type="order",
        event_type="created",
        schema_version="2.4.0",
        data_schema="https://example.com/schemas/order-2.json",
        content_type="application/json; charset=utf-8",
    ),
    EventDefinition(
        key="order.paid",
        resource_type="order",
        event_type="paid",
        payload={"type": "object", "properties": {"cents": {"type": "integer"}}, "required": ["cents"]},
    ),
    EventDefinition(key="clock.ticked", resource_type="clock", event_type="ticked", system=True),
    EventDefinition(
        key="report.made", resource_type="report", event_type="made", content_type="application/pdf"
    ),
    EventDefinition(
        key="payout.sent",
        resource_type="payout",
        event_type="sent",
        sources=("//bank/payouts", "//bank/café"),
    ),
    EventDefinition(
        key="hint.given", resource_type="hint", event_type="given", policy={"dlq": "never"}, topic="all.hints"
    ),
    EventDefinition(
        key="fax.sent", resource_type="fax", event_type="sent", policy={"enabled": False, "dlq": "never"}
    ),
    EventDefinition(
        key="parcel.lost", resource_type="parcel", event_type="lost", content_type="application/octet-stream"
    ),
    EventDefinition(key="trap.sprung", resource_type="trap", event_type="sprung"),
)
