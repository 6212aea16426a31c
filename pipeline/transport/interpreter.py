"""Python itself, set up for a worker: its collector looks for cycles seldom, its threads hand its lock on soon.

Owns: when the collector looks, how long a thread waits for the lock. Must not know: what is worked on.

Left alone the collector runs whenever 700 more objects were made than freed, and a worker holds some hundred thousand:
the records that are under way. They are in no cycle and go as soon as they are delivered, yet looking through them
took 40 % of the worker's time (benchmarks/LOG.md).
"""

from __future__ import annotations

import asyncio
import gc
import sys

__all__ = ["suit_a_worker"]

_EVERY_S = 10.0
_BACKSTOP = 1_000_000
"""Objects made and not freed after which it runs anyway, should somebody's agent leave many cycles behind: some
100 MB. What a worker has under way stays below."""
_LOCK_S = 0.0005
"""How long a thread waits for the lock before it asks for it. Python says 5 ms. An event goes from the
consumer's thread to the loop, while both work: each hop would wait that long for the other."""


async def suit_a_worker() -> None:
    """Never look again at what is there now; look at the rest every ten seconds. Runs until it is cancelled, which
    leaves the interpreter as it was."""
    threshold, lock_s = gc.get_threshold(), sys.getswitchinterval()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_BACKSTOP, *threshold[1:])
    sys.setswitchinterval(_LOCK_S)
    try:
        while True:
            await asyncio.sleep(_EVERY_S)
            gc.collect()
    finally:
        sys.setswitchinterval(lock_s)
        gc.set_threshold(*threshold)
        gc.unfreeze()
