"""What is started for a partition ends with it, at whatever moment that is given away."""

from __future__ import annotations

import asyncio
from typing import Any, Never

from catalog import OwnTopics
from pipeline.breaker import BreakerPolicy, State
from pipeline.park import Checkpoint, Cursor
from pipeline.parking.backlog import Backlog, Partition, Stray
from pipeline.parking.breakers import Breakers
from pipeline.parking.drain import Drainer
from pipeline.parking.sweep import Chunk
from pipeline.testing import SteppingClock

SICK, WELL = "sick", "well"


class _NothingMoves:
    """A way that nothing goes: the parked topic is never read here."""

    def drain(self, chunk: Chunk) -> str:
        raise NotImplementedError(chunk)

    def abandon(self, chunks: list[Chunk]) -> None:
        assert not chunks

    def evict(self, target: str, reason: str) -> None:
        raise NotImplementedError(target, reason)

    def is_ready(self, name: str) -> bool:
        return bool(name)


async def test_what_had_only_been_started_ends_too() -> None:
    """B2, P3: a rebalance in the very turn in which a probe and a pass are started ends both before they begin: the
    target is probed again, nobody waits for the pass, and it takes no other one's place."""

    def open_reader() -> Any:
        raise AssertionError("it had ended before it began")

    async def check(target: str) -> None:
        raise AssertionError(target)

    def park(backlog: Backlog, strays: list[Stray]) -> Never:
        raise AssertionError(backlog, strays)

    clock = SteppingClock()
    breakers = Breakers([SICK, WELL], BreakerPolicy(open_s=0.0), clock)
    breakers.trip(SICK, "down")
    cursor = Cursor(0, 9, 10, 100, 0.0, "down")
    partitions = {0: Partition(0, Checkpoint(10, {WELL: cursor}), parks_unknown=True)}
    drainer = Drainer(
        OwnTopics("shop"),
        breakers,
        partitions,
        open_reader=open_reader,
        check=check,
        detour=_NothingMoves(),
        park=park,
        clock=clock,
        room_s=2.0,
    )
    for _ in range(4):  # one more than there may be passes at once
        drainer.tick(clock.monotonic())
        assert breakers.state(SICK) is State.HALF_OPEN
        assert len(drainer._sweeps) == 1
        drainer.let_go()
        async with asyncio.timeout(5):
            await drainer.finished()
        assert breakers.state(SICK) is State.OPEN
        assert breakers.standing(SICK).next_probe_in == 0.0
        partitions[0] = Partition(0, Checkpoint(10, {WELL: cursor}), parks_unknown=True)
