"""A batch under way, and its parcels, to targets and to topics of our own: who is told what.

Owns: counting down to a batch's end, what of a column has not ended. Must not know: how anything is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from catalog.names import DLQ_SUFFIX
from pipeline.dlq import PAYLOAD_BYTES, PAYLOAD_OMITTED, Failure
from pipeline.kafka.lane import Parcel
from pipeline.plan import Column
from pipeline.record import OutRecord, ReadRecord

__all__ = ["Hold", "StagedBatch", "Ticket", "ToKept", "ToTarget"]

_TOO_LARGE = frozenset({10, 18})
"""Protocol error codes MESSAGE_TOO_LARGE and RECORD_LIST_TOO_LARGE."""


def _nobody() -> None:
    """Whom an ended batch tells."""


class StagedBatch(Protocol):
    """Consecutive records of one staging partition."""

    @property
    def records(self) -> Sequence[ReadRecord]:
        """The records, in order."""
        ...

    @property
    def partition(self) -> int:
        """The staging partition."""
        ...


class Hold:
    """Why a batch cannot be written now; `topics`: target topics whose partition count has to be learnt first."""

    __slots__ = ("cause", "topics")

    def __init__(self, cause: str, topics: frozenset[str] = frozenset()) -> None:
        self.cause = cause
        self.topics = topics


class Ticket:
    """A batch under way: how many of its records have not reached an end, and whom to tell when none is left.

    `reached`: how many of them a target acknowledged.
    """

    __slots__ = ("batch", "left", "on_end", "parcels", "reached")

    def __init__(self, batch: StagedBatch, left: int, on_end: Callable[[], None]) -> None:
        self.batch = batch
        self.left = left
        self.on_end = on_end
        self.reached = 0
        self.parcels: list[Parcel] = []

    def let_go(self) -> None:
        """It has ended: forget whoever knows it, so that all of its records go at once, without a collector."""
        self.parcels.clear()
        self.on_end = _nobody


class KeptEnds(Protocol):
    """Who is told how a kept record ends."""

    def kept(self, parcel: ToKept, offset: int) -> None:
        """It is on its topic."""
        ...

    def keep(self, parcel: ToKept) -> None:
        """Write it."""
        ...

    def keep_later(self, parcel: ToKept, error: BaseException) -> None:
        """Write it after a pause."""
        ...


class TargetEnds(Protocol):
    """Who is told how a column ends."""

    def reached(self, ticket: Ticket, column: Column, first: int, count: int) -> None:
        """Records of a column, from the `first` on, were acknowledged by their target."""
        ...

    def refused(self, ticket: Ticket, column: Column, at: int, error: BaseException, retries: int) -> None:
        """The target will never take a record."""
        ...


class ToTarget(Parcel):
    """A column on its way to one partition of one target."""

    __slots__ = ("_ends", "column", "done", "ticket")

    def __init__(self, column: Column, ticket: Ticket, ends: TargetEnds) -> None:
        super().__init__(column.records, size=column.size)
        self.column = column
        self.ticket = ticket
        self.done = 0
        """How many of the records, from the first on, have ended: a lane keeps the order."""
        self._ends = ends

    def left(self) -> list[int]:
        """The indices of the staging records that have not ended."""
        return self.column.sources[self.done :]

    def acked(self, first: int, count: int, offset: int) -> None:  # noqa: ARG002 -- ends are counted
        """On the target."""
        self.done = first + count
        self._ends.reached(self.ticket, self.column, first, count)

    def refused(self, index: int, error: BaseException) -> None:
        """It ends elsewhere."""
        self.done = index + 1
        self._ends.refused(self.ticket, self.column, index, error, self.retries)

    def given_up(self, first: int, count: int, error: BaseException) -> None:
        """The worker lets go of it; not being committed, it will be delivered again."""


class ToKept(Parcel):
    """A dead letter or an audit record on its way: the end of one staging record."""

    __slots__ = ("_ends", "_whole", "failure", "like", "ticket", "topic")
    records: Sequence[OutRecord]

    def __init__(
        self,
        record: OutRecord,
        ticket: Ticket,
        ends: KeptEnds,
        topic: str,
        like: str,
        failure: Failure,
        whole: OutRecord | None = None,
    ) -> None:
        super().__init__((record,))
        self.topic = topic
        self.like = like
        self.ticket = ticket
        self._ends = ends
        self.failure = failure
        self._whole = whole or record

    def acked(self, first: int, count: int, offset: int) -> None:  # noqa: ARG002 -- one record
        """It is kept."""
        self._ends.kept(self, offset)

    def refused(self, index: int, error: BaseException) -> None:  # noqa: ARG002 -- one record
        """Too large even for its dead-letter topic: keep everything but the payload (Q2). Else try again (Q4)."""
        key, value, headers = self.records[0]
        if value is not None and getattr(error, "errno", None) in _TOO_LARGE and self.is_dead_letter:
            omitted = [(PAYLOAD_OMITTED, b"true"), (PAYLOAD_BYTES, str(len(value)).encode())]
            self._ends.keep(self._again((key, None, [*headers, *omitted])))
        else:
            self._ends.keep_later(self._again(self._whole), error)

    def given_up(self, first: int, count: int, error: BaseException) -> None:
        """As for a target."""

    @property
    def is_dead_letter(self) -> bool:
        """Whether it goes to a dead-letter topic."""
        return self.topic.endswith(DLQ_SUFFIX)

    def _again(self, record: OutRecord) -> ToKept:
        return ToKept(record, self.ticket, self._ends, self.topic, self.like, self.failure, self._whole)
