"""A catalog for the tests of the client, one definition for each kind of check; and settings that use it."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from catalog import Catalog, EventDefinition, load
from pipeline.client.event import Event, EventChecker
from pipeline.clock import Clock
from pipeline.settings import Settings
from pipeline.testing import SteppingClock

NAME = __name__
SOURCE = "//tests/client"


class Order(BaseModel):
    """A payload with a field that is called otherwise in JSON."""

    model_config = ConfigDict(extra="forbid")

    number: int
    total: float = 0.0
    note_text: str | None = Field(None, alias="noteText")


class Invoice(BaseModel):
    """A payload of something else."""

    number: int


def _definition(key: str, **changes: object) -> EventDefinition:
    resource_type, _, event_type = key.partition(".")
    fields = {"key": key, "resource_type": resource_type, "event_type": event_type}
    return EventDefinition.model_validate(fields | changes)


SCHEMA = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}

DEFINITIONS = (
    _definition("thing.happened"),
    _definition("thing.modelled", payload=Order),
    _definition("thing.schemed", payload=SCHEMA),
    _definition("thing.raw", content_type="application/octet-stream"),
    _definition("thing.disabled", policy={"enabled": False}),
    _definition("thing.never", policy={"outbox": "never"}),
    _definition("thing.always", policy={"outbox": "always"}),
    _definition("thing.guarded", sources=["//elsewhere", SOURCE]),
    _definition("thing.foreign", sources=["//elsewhere"]),
    _definition("clock.ticked", system=True),
)

NO_OUTBOX = ",".join(f"{definition.key}.outbox=never" for definition in DEFINITIONS)
"""Policies of a service that has no outbox: what the broker does not take raises."""


def settings(**changes: object) -> Settings:
    """Settings that use this catalog, with `changes` laid over them; a broker that nobody answers for.

    Without an `outbox_dir` no event may go to one.
    """
    fields = {"brokers": "127.0.0.1:1", "catalog": NAME, "cloudevents_source": SOURCE}
    if "outbox_dir" not in changes:
        fields["event_policies"] = NO_OUTBOX
    return Settings.model_validate(fields | changes)


def catalog_of(given: Settings) -> Catalog:
    """The catalog those settings name."""
    return load(given.catalog, namespace=given.namespace, policies=given.event_policies)


def checker(clock: Clock | None = None, **changes: object) -> EventChecker:
    """A checker over this catalog."""
    given = settings(**changes)
    return EventChecker(catalog_of(given), given, clock or SteppingClock())


def headers_of(event: Event) -> dict[str, bytes]:
    """The headers of the staging record; none of ours is repeated."""
    assert len(dict(event.headers)) == len(event.headers)
    return dict(event.headers)


def time_of(event: Event) -> datetime:
    """What the record says about the time."""
    return datetime.fromisoformat(headers_of(event)["stage-time"].decode())
