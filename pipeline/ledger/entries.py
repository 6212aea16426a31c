"""The compact entries that the ledger sorts: one per staging record, per end of one, per delivery.

Owns: their layout, and what makes two records the same event. Must not know: what follows from that.
All numbers are big-endian, so that entries sort by their fields in the order written here.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntFlag
from hashlib import blake2b
from struct import Struct

from catalog import Catalog
from pipeline import staging

__all__ = ["DELIVERED", "END", "EVENT", "MOVE", "NO_TOPIC", "STAGED", "Flags", "Identities", "check_of"]

EVENT = Struct(">16sBHIQBQ")
"""Identity; `STAGED` or `DELIVERED`; target topic by number; partition; offset; flags; the time in ms of a staging
record, or the hash of the key of a delivery."""
END = Struct(">IQBHIQQ")
"""Staging partition and offset; the flag of the end; its topic by number, its partition, its offset; a check of
the id."""
MOVE = Struct(">HIQIQQ")
"""A first delivery: target topic by number, partition, hash of the key, staging partition; then the offset on the
target and on staging."""

STAGED, DELIVERED = 0, 1
NO_TOPIC = 0xFFFF


class Flags(IntFlag):
    """What is known of a staging record before its deliveries are."""

    COMMITTED = 1
    DEAD_LETTERED = 2
    SKIPPED = 4
    PARKED = 8
    REDRIVEN = 16

    ENDED = DEAD_LETTERED | SKIPPED


class Identities:
    """The identity of an event, 16 bytes: equal for its staging records and its deliveries, and for nothing else.

    Two definitions may share a topic, and a caller may use one id for both: so the type is part of it.
    """

    def __init__(self, catalog: Catalog, numbers: Mapping[str, int]) -> None:
        self._of_definition: dict[bytes, tuple[int, bytes]] = {}
        for definition in catalog:
            topic = catalog.topic(definition.key)
            kind = _kind(topic, definition.resource_type.encode(), definition.event_type.encode())
            self._of_definition[definition.key.encode()] = numbers[topic], kind

    def staged(self, fields: Mapping[str, bytes | None], partition: int, offset: int) -> tuple[bytes, int]:
        """The identity of a staging record, and its target topic by number, `NO_TOPIC` where nobody knows it.

        One that lacks an id or a source is the same as no other: its place is its identity.
        """
        definition = fields.get(staging.DEFINITION) or b""
        topic, kind = self._of_definition.get(definition) or (NO_TOPIC, b"?" + definition)
        event_id, source = fields.get(staging.ID), fields.get(staging.SOURCE)
        if event_id is None or source is None:
            return _digest(b"at %d/%d" % (partition, offset)), topic
        return _digest(b"%b %d %b%b" % (kind, len(source), source, event_id)), topic

    def delivered(self, topic: str, fields: Mapping[str, bytes | None]) -> bytes | None:
        """The identity of a record on a target, in either dialect; None for one that no worker of ours wrote."""
        dialect = "ce_" if "ce_id" in fields else "ce-"
        event_id, source = fields.get(dialect + "id"), fields.get(dialect + "source")
        resource, event = fields.get(dialect + "resourcetype"), fields.get(dialect + "eventtype")
        if event_id is None or source is None or resource is None or event is None:
            return None
        return _digest(b"%b %d %b%b" % (_kind(topic, resource, event), len(source), source, event_id))


def check_of(event_id: bytes | None) -> int:
    """A number by which an end shows that it is the end of this id, and not of what stood there before."""
    shown = (event_id or b"")[:256].decode(errors="replace")
    return int.from_bytes(blake2b(shown.encode(), digest_size=8).digest())


def _kind(topic: str, resource: bytes, event: bytes) -> bytes:
    return b"%b %b %b" % (topic.encode(), resource, event)


def _digest(text: bytes) -> bytes:
    return blake2b(text, digest_size=16).digest()
