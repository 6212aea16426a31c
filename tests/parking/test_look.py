"""What an errand would meet, read from the topics alone: counts, tenants, what has ended, what took too long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from catalog import OwnTopics
from pipeline.kafka.reader import Bounds, Place
from pipeline.park import Checkpoint, Choice, Cursor, Moved, Origin, dump_checkpoint, park_headers
from pipeline.parking.look import Look, Share, look
from pipeline.record import RawHeader

OWN = OwnTopics("shop")
NAME = "shop.order.created"


class Kept(NamedTuple):
    """A record on a topic of ours."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[RawHeader]


class Topics:
    """Both topics in memory, as a reader: two partitions."""

    def __init__(self) -> None:
        self.records: dict[Place, list[Kept]] = {
            Place(topic, number): [] for topic in (OWN.parked, OWN.parked_cursors) for number in (0, 1)
        }
        self.at: dict[Place, int] = {}
        self.is_slow = False

    def park(self, partition: int, name: str, tenant: str, at: float) -> None:
        """Park an event."""
        kept = self.records[Place(OWN.parked, partition)]
        own: list[RawHeader] = [("stage-tenant", tenant.encode()), ("stage-definition", b"order.created")]
        headers = park_headers(own, Origin(name, partition, len(kept), "down", at))
        kept.append(Kept(len(kept), b"k", b"v", headers))

    def save(self, partition: int, checkpoint: Checkpoint) -> None:
        """Note how far everything is."""
        kept = self.records[Place(OWN.parked_cursors, partition)]
        kept.append(Kept(len(kept), b"%d" % partition, dump_checkpoint(checkpoint), []))

    async def bounds(self, topic: str) -> dict[int, Bounds]:
        """All of it."""
        return {at.partition: Bounds(0, len(kept)) for at, kept in self.records.items() if at.topic == topic}

    async def ends(self, places: Collection[Place]) -> dict[Place, int]:
        """Behind the last record."""
        return {place: len(self.records[place]) for place in places}

    def read_from(self, offsets: dict[Place, int]) -> None:
        """From there."""
        self.at = dict(offsets)

    async def fetch(self, max_records: int, timeout_s: float) -> dict[Place, list[Any]]:  # noqa: ARG002
        """All the rest, but nothing where it is slow."""
        await asyncio.sleep(0.001)
        wanted = {p: at for p, at in self.at.items() if not (self.is_slow and p.topic == OWN.parked)}
        found = {place: list(self.records[place][at:]) for place, at in wanted.items()}
        self.at |= {place: len(self.records[place]) for place in wanted}
        return {place: records for place, records in found.items() if records}

    async def position(self, place: Place) -> int:
        """The next one."""
        return self.at[place]

    async def look(self, choice: Choice, partition: int | None = None, limit_s: float = 5.0) -> Look:
        """Look at it."""

        @asynccontextmanager
        async def reading() -> AsyncIterator[Topics]:
            yield self

        return await look(reading(), OWN, NAME, choice, partition, limit_s)


def full() -> Topics:
    """Six events, of which one was drained and one moved on; one of another name."""
    topics = Topics()
    for number, (partition, tenant) in enumerate([(0, "a"), (0, "a"), (0, "b"), (0, "b"), (1, "c"), (1, "")]):
        topics.park(partition, NAME, tenant, 100.0 + number)
    topics.park(1, "other", "z", 1.0)
    moved = (Moved(Choice("b"), 3),)
    topics.save(0, Checkpoint(4, {NAME: Cursor(1, 3, 2, 20, 101.0, "down", moved)}))
    return topics


async def test_a_look_tells_how_many_whose_and_since_when() -> None:
    """P6, O1: of all partitions, whoever has them, and only what has not ended; what is parked behind the last
    checkpoint is seen too, other names are not."""
    found = await full().look(Choice())
    assert (found.count, found.looked_at, found.is_whole, found.oldest_at) == (4, 4, True, 101.0)
    assert {(share.name, share.count) for share in found.tenants} == {("a", 1), ("b", 1), ("c", 1), ("", 1)}
    assert list(found.definitions) == [Share("order.created", 4)]
    assert list(found.partitions) == [Share("0", 2), Share("1", 2)]
    assert list(found.reasons) == ["down"]
    assert (await full().look(Choice("b"))).count == 1
    assert (await full().look(Choice(definition="order.paid"))).count == 0
    assert (await full().look(Choice(), 1)).count == 2
    assert (await full().look(Choice(), 7)).count == 0


async def test_a_look_that_takes_too_long_tells_what_the_cursors_know() -> None:
    """P6: with more than can be read in time the counts are still right, and it is told that the rest is a part."""
    topics = full()
    topics.save(
        1, Checkpoint(3, {NAME: Cursor(0, 1, 2, 20, 104.0, "down"), "other": Cursor(2, 2, 1, 9, 1.0, "x")})
    )
    topics.is_slow = True
    found = await topics.look(Choice(), limit_s=0.05)
    assert (found.count, found.looked_at, found.is_whole, found.oldest_at) == (4, 0, False, 101.0)
    assert not found.tenants
    assert not (await topics.look(Choice("a"), limit_s=0.05)).is_whole
