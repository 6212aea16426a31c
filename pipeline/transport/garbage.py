"""Python's collector of cyclic garbage, set up for a worker: seldom, and not in the middle of the work.

Owns: when it looks. Must not know: what is worked on.

Left alone it runs whenever 700 more objects were made than freed, and a worker holds some hundred thousand: the
records that are under way. They are in no cycle and go as soon as they are delivered, yet looking through them
took 40 % of the worker's time (benchmarks/LOG.md).
"""

from __future__ import annotations

import asyncio
import gc

__all__ = ["collect_seldom"]

_EVERY_S = 10.0
_BACKSTOP = 1_000_000
"""Objects made and not freed after which it runs anyway, should somebody's agent leave many cycles behind: some
100 MB. What a worker has under way stays below."""


async def collect_seldom() -> None:
    """Never look again at what is there now; look at the rest every ten seconds. Runs until it is cancelled."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_BACKSTOP, *before[1:])
    try:
        while True:
            await asyncio.sleep(_EVERY_S)
            gc.collect()
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
