"""Draining, and the way back to straight delivery, under any schedule of events, acknowledgements and failures; and
what an operator orders in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from tests.parking.parked_world import NAME, World


async def live(world: World, orders: Sequence[Callable[[], None]] = ()) -> None:
    """Turmoil, then peace until nothing waits."""
    turmoil = [world.stage] * 6 + [world.acknowledge] * 6 + [world.end] * 4 + [world.drain] * 3
    turmoil += [world.fall_sick, world.fail, world.others_park, lambda: world.clock.step(0.5)]
    turmoil += [*orders, world.bury]
    for _ in range(300):
        world.chance.choice(turmoil)()
        for _ in range(world.chance.randint(0, 3)):
            await asyncio.sleep(0)
    for _ in range(5_000):
        if world.partition.get(NAME) is None and not world.writing:
            break
        world.acknowledge()
        world.end()
        world.bury()
        world.drain()
        if world.chance.random() < 0.2:
            world.stage()  # it never stops
        await asyncio.sleep(0)


@pytest.mark.parametrize("first", range(0, 200, 100))
def test_order_holds_and_nothing_is_lost_whatever_the_schedule(first: int) -> None:
    """T5, P2, P3: whatever comes when, first arrivals are in staging order, everything arrives, the way back is found
    while events keep coming, and nothing comes twice but what was lost on its way."""
    ways_back = 0
    for seed in range(first, first + 100):
        world = World(seed)
        asyncio.run(live(world))
        assert world.partition.get(NAME) is None, f"seed {seed}: the way back was not found"
        assert list(dict.fromkeys(world.arrived)) == list(range(world.staged)), f"seed {seed}"
        assert world.lost or len(world.arrived) == world.staged, f"seed {seed}: twice, and nothing was lost"
        ways_back += bool(world.log)
    assert ways_back > 50


@pytest.mark.parametrize("first", range(0, 200, 100))
def test_what_an_operator_orders_keeps_the_order_and_loses_nothing(first: int) -> None:
    """P6, T5: releases and move-ons of all or of a tenant's events, at any time: each event arrives or is moved on, in
    staging order; moved on is only what was parked and chosen when it was ordered, and each of that once."""
    through = moved = 0
    for seed in range(first, first + 100):
        world = World(seed)
        orders = [world.release, world.move_on, world.move_on, world.rest]
        asyncio.run(live(world, orders))
        assert world.partition.get(NAME) is None, f"seed {seed}: the way back was not found"
        firsts = list(dict.fromkeys(world.arrived))
        assert firsts == sorted(firsts), f"seed {seed}"
        assert {*world.arrived, *world.moved} == set(range(world.staged)), f"seed {seed}"
        assert len(world.moved) == len({*world.moved}), f"seed {seed}: dead-lettered twice"
        assert {*world.moved} <= world.allowed, f"seed {seed}: moved on though nobody ordered it"
        both = {*world.arrived} & {*world.moved}
        assert world.lost or not both, f"seed {seed}: delivered and moved on, and nothing was lost"
        through += world.through
        moved += len(world.moved)
    assert through > 100
    assert moved > 500
