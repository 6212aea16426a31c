"""One timer for many calls (S7): what it holds, and whom it tells."""

from __future__ import annotations

import asyncio

from pipeline import Staged
from pipeline.client.call import Call
from pipeline.client.deadlines import Deadlines
from pipeline.testing.clock import SteppingClock


def call() -> Call:
    """A call that a task awaits."""
    outcome: asyncio.Future[Staged] = asyncio.get_running_loop().create_future()
    return Call("id", b"key", b"", "never", outcome, lambda _: None)


async def test_calls_that_were_answered_are_held_no_longer() -> None:
    """A call and its record are let go of with the next ones, not when their time is up: at 40,000 calls a second
    the others would be 60,000."""
    clock = SteppingClock()
    deadlines = Deadlines(1.5, clock, lambda _: None)
    answered, waiting = [call() for _ in range(64)], call()
    for one in answered:
        deadlines.add(one, clock.monotonic())
        one.answer(Staged("id", "noop"))
    deadlines.add(waiting, clock.monotonic())
    await asyncio.sleep(0)
    assert [one for _, one in deadlines._calls] == [waiting]
    deadlines.stop()


async def test_each_call_comes_due_by_its_own_time() -> None:
    """Calls added in one turn of the loop are overdue each so long after it was added, and no answered one is."""
    clock = SteppingClock()
    due: list[Call] = []
    told = asyncio.Event()

    def overdue(one: Call) -> None:
        due.append(one)
        told.set()

    deadlines = Deadlines(0.02, clock, overdue)
    first, answered, later = call(), call(), call()
    deadlines.add(first, clock.monotonic())
    deadlines.add(answered, clock.monotonic())
    answered.answer(Staged("id", "noop"))
    clock.step(0.01)
    deadlines.add(later, clock.monotonic())
    clock.step(0.01)
    await asyncio.wait_for(told.wait(), 5)
    assert due == [first]
    told.clear()
    clock.step(0.01)
    await asyncio.wait_for(told.wait(), 5)
    assert due == [first, later]
    deadlines.stop()
