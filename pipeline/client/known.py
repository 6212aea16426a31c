"""What is worked out once for many events: what all of one definition have in common, and all of one tenant.

Owns: the headers and bytes that such events share. Must not know: single events.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from catalog import Catalog, EventDefinition
from catalog.payloads import PayloadValidator
from catalog.policies import DeliveryPolicy
from pipeline import packing, staging
from pipeline.errors import InvalidField
from pipeline.record import Header
from pipeline.settings import Settings

__all__ = ["Kind", "Kinds", "Tenant", "Tenants"]

_MOST_TENANTS: Final = 65_536
_OF_EACH: Final = (staging.ID, staging.TIME)
"""Headers that every event has with a value of its own."""


class Kind(NamedTuple):
    """What all events of one definition have in common."""

    definition: EventDefinition
    policy: DeliveryPolicy
    """In force where a call overrides nothing."""
    header_count: int
    """How many headers every event has."""
    packed: bytes
    """Those that all have in common, and the id's up to its value."""
    validator: PayloadValidator
    system_key: bytes | None
    span_name: str


class Kinds(dict[str, Kind]):
    """Those that were asked for, by the definition's key. Raises a caller error for one that may not be staged."""

    def __init__(self, catalog: Catalog, settings: Settings) -> None:
        super().__init__()
        self._catalog = catalog
        self._source = settings.cloudevents_source
        self._constant: tuple[Header, ...] = (
            (staging.VERSION, staging.VERSION_1),
            (staging.SOURCE, staging.check_text("source", self._source)),
            (staging.CATALOG, catalog.fingerprint.encode()),
        )

    def __missing__(self, key: str) -> Kind:
        definition = self._catalog.require(key)
        if definition.sources is not None and self._source not in definition.sources:
            raise InvalidField(
                "source", f"{self._source!r} may not stage {key!r}: see `sources` in its definition"
            )
        headers = (*self._constant, (staging.DEFINITION, key.encode()))
        kind = self[key] = Kind(
            definition,
            self._catalog.policy(key),
            len(headers) + len(_OF_EACH),
            packing.headers(headers) + packing.header_name(staging.ID),
            self._catalog.validator(key),
            b"system:" + definition.event_type.encode() if definition.system else None,
            f"stage {key}",
        )
        return kind


class Tenant(NamedTuple):
    """What all events of one tenant have in common."""

    data: bytes
    packed: bytes
    """The header."""


class Tenants(dict[str, Tenant]):
    """Those that were asked for last. Raises a caller error for what is no tenant's name."""

    def __missing__(self, name: str) -> Tenant:
        data = staging.check_text("tenant", name)
        if len(self) >= _MOST_TENANTS:
            self.clear()
        tenant = self[name] = Tenant(data, packing.header(staging.TENANT, data))
        return tenant
