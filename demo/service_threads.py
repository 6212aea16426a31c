"""A service without an event loop: a pool of threads that call `stage_blocking()`. A program of its own.

python -m demo.service_threads LEDGER FLIGHTS AIRPORT...
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from demo.flights import FlightEvent
from demo.ledger import Ledger
from demo.services import Task, entry_of, is_final, task_from
from pipeline import StagepostError, stage_blocking

THREADS = 16


class _Shared:
    """Work that several threads take from."""

    def __init__(self, work: Iterator[list[FlightEvent]]) -> None:
        self._work = work
        self._lock = threading.Lock()

    def take(self) -> list[FlightEvent]:
        """Return the events of the next flight; empty when there are no more."""
        with self._lock:
            return next(self._work, [])


def serve(task: Task) -> None:
    """Stage everything, with `THREADS` flights under way at once."""
    work = _Shared(task.work())
    with Ledger(task.ledger) as ledger, ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(_caller, work, ledger) for _ in range(THREADS)]:
            done.result()


def _caller(work: _Shared, ledger: Ledger) -> None:
    while events := work.take():
        for event in events:
            ledger.note(entry_of(event))
            _stage(event)


def _stage(event: FlightEvent, attempt: int = 1) -> None:
    try:
        stage_blocking(
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
        _stage(event, attempt + 1)


if __name__ == "__main__":
    serve(task_from(sys.argv[1:]))
