"""What the ledger answers: how many events are where, and which of them are missing, double or out of order.

Owns: the shape of the answer. Must not know: how it was found, or how it is printed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["At", "Counts", "Disorder", "Double", "Findings", "Ledger", "Name", "Spot", "StagingRange"]


class At(NamedTuple):
    """A staging record, by its place on the staging topic."""

    partition: int
    offset: int


class Spot(NamedTuple):
    """Any other record, by its place."""

    topic: str
    partition: int
    offset: int


class Name(NamedTuple):
    """Which event a staging record is; text for people, empty where the record does not say."""

    id: str
    source: str
    definition: str
    key: str


class Double(NamedTuple):
    """A staging record whose event has more ends than it was staged times, and the first of them."""

    at: At
    ends: tuple[Spot, ...]


class Disorder(NamedTuple):
    """A staging record whose event came to its target after one of the same key that was staged later."""

    at: At
    came: Spot
    after: At


@dataclass(slots=True)
class Counts:
    """How many. `missing`, `double` and `out_of_order` are complete, however many of them are named."""

    staged: int = 0
    """Staging records judged."""
    delivered: int = 0
    """Records on targets that belong to them."""
    dead_lettered: int = 0
    """Staging records that are dead-lettered."""
    skipped: int = 0
    """Staging records that ended in an audit record (T6)."""
    parked: int = 0
    """Staging records that wait on the parked topic."""
    pending: int = 0
    """Staging records that no worker has committed, and that are on no target yet."""
    staged_again: int = 0
    """Staging records that repeat an event: a caller's retry, an outbox after an unknown fate, a redrive."""
    missing: int = 0
    double: int = 0
    """Records too many: deliveries and dead letters beyond one for each time the event was staged."""
    out_of_order: int = 0
    foreign: int = 0
    """Records on targets that belong to nothing that staging holds: staged by nobody, or deleted from staging."""
    unjudged: int = 0
    """Staging records without an end whose target has deleted records as old as they are."""


@dataclass(slots=True)
class Findings:
    """What was found, at most `limit` of each kind; the counts are complete."""

    limit: int
    counts: Counts = field(default_factory=Counts)
    missing: list[At] = field(default_factory=list)
    double: list[Double] = field(default_factory=list)
    out_of_order: list[Disorder] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is missing and nothing out of order."""
        return not self.counts.missing and not self.counts.out_of_order

    def add_missing(self, places: Iterable[At], count: int) -> None:
        """`count` staging records have no end; `places` are those to name."""
        self.counts.missing += count
        self.missing += list(places)[: max(0, self.limit - len(self.missing))]

    def add_double(self, double: Double, count: int) -> None:
        """An event has `count` ends too many."""
        self.counts.double += count
        if len(self.double) < self.limit:
            self.double.append(double)

    def add_disorder(self, disorder: Disorder) -> None:
        """An event came too late."""
        self.counts.out_of_order += 1
        if len(self.out_of_order) < self.limit:
            self.out_of_order.append(disorder)

    def sort(self) -> None:
        """Put what is named into the order of staging."""
        self.missing.sort()
        self.double.sort()
        self.out_of_order.sort()

    def places(self) -> set[At]:
        """Every staging record that is named."""
        found = {*self.missing, *(double.at for double in self.double)}
        for disorder in self.out_of_order:
            found |= {disorder.at, disorder.after}
        return found


class StagingRange(NamedTuple):
    """What was judged of one staging partition: `first <= offset < end`.

    What lies before `first` staging has deleted; nobody can judge it. What lies from `committed` on may be pending.
    """

    first: int
    committed: int
    end: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """The whole answer: the range that was judged by staging partition, the findings, and what each event is called."""

    staging: dict[int, StagingRange]
    findings: Findings
    names: dict[At, Name]
