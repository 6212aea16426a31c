"""What the two services have in common: which events are theirs, and how patient they are.

Owns: the division of the flights among services, calling again. Must not know: how a service makes its calls.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from demo import flights
from demo.flights import FlightEvent
from demo.ledger import Entry
from pipeline import StagepostError, is_caller_error

__all__ = ["PATIENCE", "Task", "entry_of", "is_final", "task_from"]

PATIENCE: Final = 20
"""How often a service stages one event before it gives up; each call decides within two seconds."""


class Task(NamedTuple):
    """What one service is to do: stage what happens at its airports with the first `flights` flights."""

    ledger: Path
    flights: int
    airports: frozenset[str]

    def work(self) -> Iterator[list[FlightEvent]]:
        """Yield the events of one flight after the other. Those of one flight are to be staged in order."""
        for events in flights.by_flight(self.flights):
            mine = [event for event in events if _airport(event) in self.airports]
            if mine:
                yield mine


def task_from(arguments: Sequence[str]) -> Task:
    """Read a service's command line: `LEDGER FLIGHTS AIRPORT...`."""
    parser = argparse.ArgumentParser(description="One service of the demonstration.")
    parser.add_argument("ledger", type=Path)
    parser.add_argument("flights", type=int)
    parser.add_argument("airports", nargs="+")
    options = parser.parse_args(arguments)
    return Task(options.ledger, options.flights, frozenset(options.airports))


def entry_of(event: FlightEvent) -> Entry:
    """Return what the ledger says of an event."""
    return Entry(event.id, event.key, event.tenant or "")


def is_final(error: StagepostError, attempt: int) -> bool:
    """Tell whether calling again is of no use: the call itself is wrong, or patience is at its end.

    Else the same call is made again with the same id: it is then the same event.
    """
    return is_caller_error(error) or attempt >= PATIENCE


def _airport(event: FlightEvent) -> object:
    return event.payload.get("origin", event.payload.get("station"))
