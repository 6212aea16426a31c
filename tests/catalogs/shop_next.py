"""The shop after its next release: one definition more."""

from __future__ import annotations

from catalog import EventDefinition
from tests.catalogs import shop

DEFINITIONS = (*shop.DEFINITIONS, EventDefinition(key="gift.sent", resource_type="gift", event_type="sent"))
