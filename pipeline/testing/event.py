"""One event as the memory stager keeps it, how it is compared with what a test expects, and how it is shown.

Owns: reading a checked event back into what a test talks about. Must not know: who stages, who waits.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from catalog import DeliveryPolicy
from pipeline import staging
from pipeline.client.event import Event
from pipeline.types import NO_DATA, Staged

__all__ = ["ANY", "StagedEvent", "differences", "kept", "shown"]

_SHOWN_CHARS: Final = 300


class _Any(enum.Enum):
    ANY = "any"

    def __repr__(self) -> str:
        return "ANY"


ANY: Final = _Any.ANY
"""A field that a test does not care about."""


@dataclass(frozen=True, slots=True)
class StagedEvent:
    """A staged event. Nothing in it is shared with the code under test."""

    key: str
    """The definition's key."""
    id: str
    time: datetime
    tenant: str | None
    subject: str | None
    policy: DeliveryPolicy
    """The policy in force: the definition's, the environment's and the call's, merged."""
    headers: tuple[tuple[str, bytes], ...]
    """The caller's own headers."""
    value: bytes | None
    """The payload's bytes; None for `NO_DATA`."""
    is_json: bool
    record_key: bytes
    """The partition key."""
    record_headers: tuple[tuple[str, bytes], ...]
    """All headers of the staging record."""
    staged: Staged
    """What the caller got."""

    @property
    def payload(self) -> object:
        """The payload as a consumer sees it: decoded JSON where the content type is JSON, else bytes; `NO_DATA`."""
        return decoded(self.value, is_json=self.is_json)


def kept(event: Event, staged: Staged) -> StagedEvent:
    """The event as a test sees it."""
    headers = dict(event.headers)
    subject = headers.get(staging.SUBJECT)
    return StagedEvent(
        key=event.definition.key,
        id=event.id,
        time=datetime.fromisoformat(headers[staging.TIME].decode()),
        tenant=event.tenant,
        subject=None if subject is None else subject.decode(),
        policy=event.policy,
        headers=tuple(header for header in event.headers if not staging.is_reserved(header[0])),
        value=event.value,
        is_json=event.definition.is_json,
        record_key=event.key,
        record_headers=tuple(event.headers),
        staged=staged,
    )


def decoded(value: bytes | None, *, is_json: bool) -> object:
    """A payload's bytes as a test compares them."""
    if value is None:
        return NO_DATA
    return json.loads(value) if is_json else value


def differences(event: StagedEvent, expected: Mapping[str, object]) -> list[str]:
    """The expected fields that the event has otherwise, as text; a field that is `ANY` does not count."""
    return [
        f"{name} is {_brief(getattr(event, name))}, not {_brief(value)}"
        for name, value in expected.items()
        if value is not ANY and getattr(event, name) != value
    ]


def shown(event: StagedEvent) -> str:
    """The event on one line."""
    fields = {"id": event.id, "tenant": event.tenant, "subject": event.subject, "payload": event.payload}
    return f"{event.key}: " + ", ".join(
        f"{name}={_brief(value)}" for name, value in fields.items() if value is not None
    )


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}… ({len(text)} characters)"
