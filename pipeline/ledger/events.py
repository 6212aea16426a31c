"""One event: the times it was staged, the ends it reached, and what that comes to (T5, T6).

Owns: the arithmetic of missing and double, and which delivery counts for the order. Must not know: records, files.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.ledger.entries import Flags
from pipeline.ledger.findings import At

__all__ = ["Arrival", "Event", "Sum"]

_REMEMBERED = 100
"""Of an event that was staged or delivered more often, the rest is only counted."""


class Arrival(NamedTuple):
    """A delivery: target partition, offset there, hash of the record's key."""

    partition: int
    offset: int
    key: int


class Sum(NamedTuple):
    """What an event comes to, in records."""

    missing: int
    parked: int
    pending: int
    again: int


@dataclass(slots=True)
class Event:
    """The staging records and deliveries of one identity, added in the order of their offsets."""

    topic: int
    copies: int = 0
    ended: int = 0
    parked: int = 0
    pending: int = 0
    deliveries: int = 0
    redriven: bool = False
    oldest_ms: int = 0
    """The time of the first staging record that has to be on the target."""
    open_places: deque[At] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    """Committed, and on no topic of ours: these must have been delivered."""
    first: At | None = None
    """The first staging record that was not dead-lettered or skipped."""
    last: At | None = None
    scattered: bool = False
    """Whether it was staged in more than one partition, which have no order between them."""
    arrivals: list[Arrival] = field(default_factory=list)
    """The first deliveries, by partition and offset."""

    @property
    def required(self) -> int:
        """How many deliveries there must be: staging records that are committed and have no other end."""
        return self.copies - self.ended - self.parked - self.pending

    def add_staged(self, at: At, flags: int, time_ms: int) -> None:
        """It was staged here."""
        self.copies += 1
        self.redriven |= bool(flags & Flags.REDRIVEN)
        self.scattered |= self.last is not None and self.last.partition != at.partition
        self.last = at
        if flags & Flags.ENDED:
            self.ended += 1
            return
        self.first = self.first or at
        if flags & Flags.PARKED:
            self.parked += 1
        elif not flags & Flags.COMMITTED:
            self.pending += 1
        else:
            if not self.open_places:
                self.oldest_ms = time_ms
            self.open_places.append(at)

    def add_delivered(self, arrival: Arrival) -> None:
        """It came here."""
        self.deliveries += 1
        if len(self.arrivals) < _REMEMBERED:
            self.arrivals.append(arrival)

    def sum(self) -> Sum:
        """Each delivery stands for one staging record: first for those that must have one."""
        left = self.deliveries - self.required
        missing = max(0, -left)
        left = max(0, left)
        parked = max(0, self.parked - left)
        left = max(0, left - self.parked)
        pending = max(0, self.pending - left)
        return Sum(missing, parked, pending, max(0, left - self.pending))

    def first_arrivals(self) -> list[Arrival]:
        """The deliveries that count for the order (T5): the first in each partition.

        None where there is no order to keep: a redriven event, one that was staged in several partitions, or
        one of which every staging record was dead-lettered or skipped.
        """
        if self.first is None or self.redriven or self.scattered:
            return []
        found: dict[int, Arrival] = {}
        for arrival in self.arrivals:
            found.setdefault(arrival.partition, arrival)
        return list(found.values())
