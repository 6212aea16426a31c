"""Which layer set each field of a delivery policy (rule D4).

Owns: that answer. Must not know: who shows it.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Literal

from catalog.definitions import EventDefinition
from catalog.policies import DeliveryPolicy, PolicyOverride

Layer = Literal["default", "definition", "environment"]


def policy_layers(definition: EventDefinition, override: PolicyOverride | None) -> dict[str, Layer]:
    """Return, for each field of the policy in force, the layer that set it.

    `override` is the definition's entry in `STREAMING_EVENT_POLICIES`. A definition that writes a
    default out cannot be told from one that leaves it out: both are `default`.
    """
    standard = DeliveryPolicy()
    found: dict[str, Layer] = {}
    for name in (field.name for field in fields(DeliveryPolicy)):
        if override is not None and getattr(override, name) is not None:
            found[name] = "environment"
        elif getattr(definition.policy, name) != getattr(standard, name):
            found[name] = "definition"
        else:
            found[name] = "default"
    return found
