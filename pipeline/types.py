"""What `stage()` takes and gives: types that a service can import without paying for anything else (N3).

Owns: `Staged`, `NO_DATA`, the argument types. Must not know: how staging works. Standard library only.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from catalog.policies import PolicyOverride

__all__ = [
    "NO_DATA",
    "ExtraHeaders",
    "Health",
    "NoData",
    "Payload",
    "PolicyArgument",
    "Prepared",
    "Shipped",
    "Staged",
]


class NoData(enum.Enum):
    """The type of `NO_DATA`."""

    NO_DATA = "no data"


NO_DATA: Final = NoData.NO_DATA
"""An event without a payload: a null value on the topic (CloudEvents: no data)."""

Payload: TypeAlias = object
"""`bytes`, an instance of the definition's pydantic model, anything JSON, or `NO_DATA`."""

ExtraHeaders: TypeAlias = "Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]]"
PolicyArgument: TypeAlias = "Mapping[str, object] | PolicyOverride | None"


class Staged(NamedTuple):
    """What `stage()` returns: the event is durable.

    `via="topic"`: acknowledged by all in-sync replicas, at `topic`, `partition`, `offset` (-1 where the broker
    had it already and does not say where). `via="outbox"`: fsynced in the service's outbox under `sequence`.
    `via="noop"`: staging is disabled (`STREAMING_ENABLED=false`), nothing was kept.
    """

    id: str
    via: Literal["topic", "outbox", "noop"]
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    sequence: int | None = None


class Prepared(NamedTuple):
    """An event as a row of bytes, versioned, for the application's own table (S11)."""

    id: str
    bytes: bytes


class Shipped(NamedTuple):
    """What became of the rows of an outbox: so many are on the staging topic, so many were set aside."""

    shipped: int
    set_aside: int


class Health(NamedTuple):
    """How a stager is, from a real probe. `reason` says why it is not healthy, and is empty where it is."""

    state: Literal["healthy", "degraded", "down"]
    reason: str = ""
