"""The catalog of the services with transactions of their own."""

from __future__ import annotations

from catalog import EventDefinition
from catalog.policies import DeliveryPolicy

NAME = __name__

DEFINITIONS = [
    EventDefinition(
        key="order.placed", resource_type="order", event_type="placed", policy=DeliveryPolicy(outbox="never")
    )
]
