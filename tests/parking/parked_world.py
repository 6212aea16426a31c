"""One staging partition on virtual time whose target fails now and then: the parked topic, the lane and the target are
lists in memory, everything but the passes and the partition's state.

Owns: what can happen, and what has arrived. Must not know: what any test is about.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection
from typing import Any, NamedTuple

from pipeline.kafka.reader import Bounds, Place
from pipeline.park import Checkpoint, Choice, Origin, park_headers
from pipeline.parking.backlog import Backlog, Partition, Stray
from pipeline.parking.bounded import Bounded
from pipeline.parking.sweep import Chunk, ParkedRecord, Sweep
from pipeline.record import RawHeader
from pipeline.staging import TENANT
from pipeline.testing import SteppingClock

__all__ = ["NAME", "OTHER", "TENANTS", "World"]

NAME, OTHER, TOPIC = "a", "b", "parked"
TENANTS = 3


class Parked(NamedTuple):
    """A record on the parked topic."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[RawHeader]


class World:
    """One staging partition, whose target fails now and then. `arrived`: the events on the target, by offset."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.clock = SteppingClock()
        self.partition = Partition(0, Checkpoint(0, {}), parks_unknown=True)
        self.log: list[Parked] = []
        self.writing: list[tuple[Backlog, int, Stray]] = []
        self.lane: list[Chunk] = []
        self.dying: list[Chunk] = []
        self.arrived: list[int] = []
        self.staged = 0
        self.lost = 0
        self.moved: list[int] = []
        self.allowed: set[int] = set()
        """What may be moved on by now, by the orders there were."""
        self.ordered = 0
        self.through = 0
        self.sweep: Sweep | None = None
        self.task: asyncio.Task[None] | None = None
        self.position = 0

    # -- the parked topic, as a reader

    async def bounds(self, topic: str) -> dict[int, Bounds]:
        """All of it."""
        raise NotImplementedError(topic)

    async def ends(self, places: Collection[Place]) -> dict[Place, int]:
        """Behind the last record."""
        await asyncio.sleep(0)
        return dict.fromkeys(places, len(self.log))

    def read_from(self, offsets: dict[Place, int]) -> None:
        """From there."""
        (self.position,) = offsets.values()

    async def fetch(self, max_records: int, timeout_s: float) -> dict[Place, list[Any]]:  # noqa: ARG002
        """A few of the next ones."""
        await asyncio.sleep(0)
        count = self.chance.randint(0, min(max_records, 4))
        found = self.log[self.position : self.position + count]
        self.position += len(found)
        return {Place(TOPIC, 0): list(found)} if found else {}

    async def position_of(self, place: Place) -> int:  # noqa: ARG002
        """The next one."""
        return self.position

    # -- what happens

    def stage(self) -> None:
        """An event comes: straight, into the room, or to the parked topic."""
        offset, self.staged = self.staged, self.staged + 1
        record = ParkedRecord(offset, 0, b"k", b"v", [(TENANT, b"t%d" % (offset % TENANTS))])
        stray = Stray([record], lambda _: None, lambda: self.arrived.append(offset))
        backlog = self.partition.get(NAME)
        if backlog is None:
            self.arrived.append(offset)
        elif backlog.room is not None:
            backlog.room.append(stray)
        else:
            self.park(backlog, [stray])

    def park(self, backlog: Backlog, strays: list[Stray]) -> None:
        """Write to the parked topic; it takes a while."""
        for stray in strays:
            backlog.under_way += 1
            self.writing.append((backlog, stray.records[0].offset, stray))

    def others_park(self) -> None:
        """Something of another name, which is drained by nobody."""
        backlog = self.partition.open(OTHER, "down")
        backlog.under_way += 1
        self.writing.append((backlog, -1, Stray([], lambda _: None, lambda: None)))

    def fall_sick(self) -> None:
        """The target is found sick: from now on everything follows behind."""
        self.partition.open(NAME, "sick")

    def acknowledge(self) -> None:
        """The parked topic takes the next one; now and then it does not say where."""
        if self.writing:
            backlog, offset, stray = self.writing.pop(0)
            at = len(self.log)
            own = stray.records[0].headers if stray.records else []
            headers = park_headers(own, Origin(backlog.name, 0, max(offset, 0), "sick", 1.0))
            self.log.append(Parked(at, 0, b"k", b"v", headers))
            known = at if self.chance.random() < 0.9 else -1
            self.partition.parked(backlog, known, 1, 2, 1.0)

    def deliver(self, chunk: Chunk) -> str:
        """Into the lane; now and then that cannot be."""
        if self.chance.random() < 0.05:
            return "not now"
        self.lane.append(chunk)
        return ""

    def end(self) -> None:
        """The first chunk in the lane arrives."""
        if self.lane:
            chunk = self.lane.pop(0)
            self.arrived += [record.offset for record in chunk.records]
            chunk.end()

    def fail(self) -> None:
        """The target is overdue: some of the first chunk has arrived all the same, nobody knows."""
        if self.lane:
            chunk = self.lane[0]
            some = self.chance.randint(0, len(chunk.records))
            self.arrived += [record.offset for record in chunk.records[:some]]
            self.lost += 1
            chunk.lose("overdue")

    def abandon(self, chunks: list[Chunk]) -> None:
        """Out of the lane."""
        self.lane = [chunk for chunk in self.lane if chunk not in chunks]

    def drain(self) -> None:
        """Start a pass, unless there is one or nothing to do."""
        backlog = self.partition.get(NAME)
        idle = self.task is None or self.task.done()
        if idle and backlog is not None and backlog.cursor is not None and backlog.drained_by is None:
            self.sweep = Sweep(
                TOPIC,
                {0: self.partition},
                [backlog],
                deliver=self.deliver,
                abandon=self.abandon,
                park=self.park,
                clock=self.clock,
                room_s=2.0,
            )
            self.task = asyncio.create_task(self._run(self.sweep))

    def release(self) -> None:
        """An operator wants what is parked delivered now."""
        self._errand(Choice(), self.deliver)

    def move_on(self) -> None:
        """An operator wants what is parked, or a tenant's share of it, to wait no longer."""
        tenant = self.chance.choice([None, "t0", "t1"])
        self._errand(Choice(tenant), self._dead_letter)

    def rest(self) -> None:
        """He lets it rest: what is under way ends."""
        if isinstance(self.sweep, Bounded):
            self.sweep.stop("it rests")

    def _errand(self, choice: Choice, deliver: Any) -> None:
        backlog = self.partition.get(NAME)
        idle = self.task is None or self.task.done()
        if not idle or backlog is None or backlog.cursor is None or backlog.drained_by is not None:
            return
        upto = backlog.cursor.last + 1
        if deliver == self._dead_letter:
            for parked in self.log[:upto]:
                if dict(parked.headers)["park-target"] == NAME.encode() and choice.has(parked.headers):
                    self.allowed.add(int(dict(parked.headers)["park-staging-offset"] or 0))
        self.ordered += 1
        bounded = Bounded(
            TOPIC,
            {0: self.partition},
            {backlog: upto},
            choice,
            deliver=deliver,
            abandon=self.abandon,
            clock=self.clock,
            share=1,
        )
        self.sweep = bounded
        self.task = asyncio.create_task(self._carry_out(bounded))

    def _dead_letter(self, chunk: Chunk) -> str:
        self.dying.append(chunk)
        return ""

    def bury(self) -> None:
        """The first chunk on its way to the dead letters is there."""
        if self.dying:
            chunk = self.dying.pop(0)
            self.moved += [record.offset for record in chunk.records]
            chunk.end()

    async def _carry_out(self, bounded: Bounded) -> None:
        await self._run(bounded)
        self.through += len(bounded.through)

    async def _run(self, sweep: Sweep) -> None:
        reader = _Reader(self)
        await sweep.run(reader)
        await sweep.finished()


class _Reader:
    """A world as a reader."""

    def __init__(self, world: World) -> None:
        self.bounds, self.ends = world.bounds, world.ends
        self.read_from, self.fetch, self.position = world.read_from, world.fetch, world.position_of
