"""A service on asyncio: many callers at once, each awaiting `stage()`. A program of its own.

python -m demo.service_asyncio LEDGER FLIGHTS AIRPORT...
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

from demo.flights import FlightEvent
from demo.ledger import Ledger
from demo.services import Task, entry_of, is_final, task_from
from pipeline import StagepostError, stage

CALLERS = 64


async def serve(task: Task) -> None:
    """Stage everything, with `CALLERS` flights under way at once."""
    work = task.work()
    with Ledger(task.ledger) as ledger:
        async with asyncio.TaskGroup() as callers:
            for _ in range(CALLERS):
                callers.create_task(_caller(work, ledger))


async def _caller(work: Iterator[list[FlightEvent]], ledger: Ledger) -> None:
    for events in work:
        for event in events:
            ledger.note(entry_of(event))
            await _stage(event)


async def _stage(event: FlightEvent, attempt: int = 1) -> None:
    try:
        await stage(
            event.key,
            event.payload,
            tenant=event.tenant,
            subject=event.subject,
            id=event.id,
            time=event.time,
        )
    except StagepostError as error:
        if is_final(error, attempt):
            raise
        await _stage(event, attempt + 1)


if __name__ == "__main__":
    asyncio.run(serve(task_from(sys.argv[1:])))
