"""What a lane is made of: parcels, which are told what becomes of their records, and batches of parts of them.

Owns: who is told what, and that one parcel's mistake is not another's. Must not know: order, brokers, time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from pipeline.kafka.encoding import Identity
from pipeline.record import Record

__all__ = ["Batch", "Parcel", "Span", "count_of", "tell", "tell_acked"]

log = logging.getLogger(__name__)


class Parcel:
    """Records in order, handed over together. Subclasses say what becomes of them.

    Every record ends exactly once: acknowledged, refused, given up, or taken back. The three methods are called
    from the producer's loop, must not block and should not raise: what they raise is logged, and goes no further.
    """

    __slots__ = ("deadline", "records", "retries", "size", "taken")
    insists: ClassVar[bool] = False
    """Whether a record that the broker refuses is sent again, and all behind it waits; `refused` is not called."""

    def __init__(
        self, records: Sequence[Record], deadline: float | None = None, size: int | None = None
    ) -> None:
        self.records = records
        self.deadline = deadline
        self.size = size
        """No less than all records take in a batch before compression, in bytes, where somebody knows that."""
        self.retries = 0
        """How often a batch with records of it had to be sent again."""
        self.taken = 0
        """How many of the records have been part of a batch that may have been sent."""

    def acked(self, first: int, count: int, offset: int) -> None:
        """Records `first` to `first + count` are on the topic, the first at `offset` (-1: not known)."""
        raise NotImplementedError

    def refused(self, index: int, error: BaseException) -> None:
        """The broker will never take this record as it is."""
        raise NotImplementedError

    def given_up(self, first: int, count: int, error: BaseException) -> None:
        """The deadline passed, or the producer closed. Whether the records are on the topic is unknown where
        they were `taken`."""
        raise NotImplementedError


Span = tuple[Parcel, int, int]
"""Of a parcel, from this record on, so many."""


class Batch:
    """Records that are sent together, always the same, and how they were encoded last."""

    __slots__ = ("base_sequence", "corrupt", "count", "data", "identity", "in_doubt", "spans")

    def __init__(self, spans: list[Span], count: int | None = None, *, in_doubt: bool = False) -> None:
        self.spans = spans
        self.count = count_of(spans) if count is None else count
        self.in_doubt = in_doubt
        """Whether an attempt went out without an answer: the records may be on the topic."""
        self.corrupt = 0
        """How often a broker has found it corrupt."""
        self.identity: Identity | None = None
        """Of `data`; None: it is to be encoded."""
        self.base_sequence = 0
        self.data: bytes | bytearray = b""

    def records(self) -> Sequence[Record]:
        """The records, in order."""
        if len(self.spans) == 1 and self.count == len(self.spans[0][0].records):
            return self.spans[0][0].records
        found: list[Record] = []
        for parcel, first, count in self.spans:
            records = parcel.records
            found += records[first : first + count] if count < len(records) else records
        return found

    def halves(self) -> tuple[Batch, Batch]:
        """The first half of the records, and the rest."""
        left: list[Span] = []
        right: list[Span] = []
        room = self.count // 2
        for parcel, first, count in self.spans:
            fits = min(count, room)
            room -= fits
            if fits:
                left.append((parcel, first, fits))
            if fits < count:
                right.append((parcel, first + fits, count - fits))
        return Batch(left, in_doubt=self.in_doubt), Batch(right, in_doubt=self.in_doubt)

    def without(self, is_gone: Callable[[Parcel], bool]) -> Batch:
        """Another batch of the rest: an answer to this one is none to that."""
        return Batch([span for span in self.spans if not is_gone(span[0])], in_doubt=self.in_doubt)


def count_of(spans: Iterable[Span]) -> int:
    """How many records."""
    return sum(count for _, _, count in spans)


def tell(callback: Callable[..., None], *facts: object) -> None:
    """Tell a parcel something; what that raises is logged."""
    try:
        callback(*facts)
    except Exception as error:  # noqa: BLE001 -- whatever it is, others are told all the same
        _not_told(callback, error)


def tell_acked(spans: Iterable[Span], offset: int) -> None:
    """Tell parcels that these parts of them are on the topic, from `offset` on (-1: not known). A batch is told at
    once: a call of `tell` for each would take as long as what most parcels do."""
    at = offset
    for parcel, first, count in spans:
        try:
            parcel.acked(first, count, at)
        except Exception as error:  # noqa: BLE001 -- the same
            _not_told(parcel.acked, error)
        if offset >= 0:
            at += count


def _not_told(callback: Callable[..., None], error: Exception) -> None:
    log.error(
        "producer.end_not_told callback=%r -- it may now wait for ever; please report this",
        callback,
        exc_info=error,
    )
