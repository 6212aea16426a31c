"""A service under fire: many tenants, each staging one numbered event after another, and writing each id down.

    python -m tests.chaos.chaos_service NAME JOURNAL TENANTS RATE

Owns: the load of one process. Must not know: what is done to it. The end of its input: stage nothing new, stay.
SIGTERM: close.
Ids are `<name>/<tenant>/<number>`; the numbers of one tenant are staged one after the other, so staging must keep
their order (S6). A call that is refused is made again with the same id, as a real service would.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from pipeline import Settings, StagepostError, Stager, is_caller_error
from tests.chaos.chaos_catalog import KEYS
from tests.chaos.journal import Journal

_AGAIN_S = 0.1


async def main(name: str, journal: Journal, tenants: int, rate: float) -> None:
    """Stage until told otherwise; `rate` in events a second over all tenants."""
    quiet, over = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), quiet.set)
    loop.add_signal_handler(signal.SIGTERM, over.set)
    async with Stager(Settings.from_env(os.environ)) as stager:
        loads = [
            asyncio.create_task(_tenant(stager, journal, f"{name}/{number}", quiet, tenants / rate))
            for number in range(tenants)
        ]
        await over.wait()
        quiet.set()
        await asyncio.gather(*loads)


async def _tenant(stager: Stager, journal: Journal, tenant: str, quiet: asyncio.Event, pace_s: float) -> None:
    number = 0
    while not quiet.is_set():
        event_id = f"{tenant}/{number}"
        journal.begins(event_id)
        while not await _staged(stager, journal, tenant, event_id, number):
            if await _over_within(quiet, _AGAIN_S):
                return
        number += 1
        await _over_within(quiet, pace_s)


async def _staged(stager: Stager, journal: Journal, tenant: str, event_id: str, number: int) -> bool:
    try:
        staged = await stager.stage(
            KEYS[number % len(KEYS)], {"n": number}, tenant=tenant.replace("/", "-"), id=event_id
        )
    except StagepostError as error:
        if is_caller_error(error):
            raise
        journal.refused(event_id, error)
        return False
    journal.durable(event_id, staged.via)
    return True


async def _over_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


if __name__ == "__main__":
    with Journal(Path(sys.argv[2])) as written:
        asyncio.run(main(sys.argv[1], written, int(sys.argv[3]), float(sys.argv[4])))
