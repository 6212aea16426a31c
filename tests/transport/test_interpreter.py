"""What a worker makes of the Python it runs in."""

from __future__ import annotations

import asyncio
import gc
import sys

from pipeline.transport.interpreter import suit_a_worker


def how_it_is() -> tuple[float, tuple[int, int, int], int]:
    """How long a thread waits for Python's lock, when the collector looks, and at how many objects never."""
    return sys.getswitchinterval(), gc.get_threshold(), gc.get_freeze_count()


async def test_threads_hand_the_lock_on_soon_and_the_collector_looks_seldom() -> None:
    """An event does not wait 5 ms for each change of thread, nor for the collector;
    who runs a worker beside something else has his interpreter back when it ends."""
    before = how_it_is()
    task = asyncio.create_task(suit_a_worker())
    await asyncio.sleep(0)
    lock_s, threshold, frozen = how_it_is()
    task.cancel()
    await asyncio.wait([task])
    assert lock_s <= 0.001
    assert threshold[0] > 100_000
    assert frozen > before[2]
    assert how_it_is() == before
