"""The order of one partition: a FIFO of parcels of which one record batch at a time is unresolved. Sans I/O.

Owns: what is sent next, what a refusal, a retry or a deadline means for the records behind it.
Must not know: sockets, the event loop. The clock is handed in.

One unresolved batch makes every question about order simple: a batch that failed is sent again before
anything behind it, under the same producer id and sequence number, so that a broker that has it already
answers without appending it twice (KIP-98).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from pipeline.kafka.encoding import Identity, OutRecord, encode, estimate

__all__ = ["Batch", "Lane", "Parcel"]

_FIRST_BACKOFF_S = 0.05
_LAST_BACKOFF_S = 1.0


class Parcel:
    """Records in order, handed over together. Subclasses say what becomes of them.

    Every record ends exactly once: acknowledged, refused, or given up. The three methods are called from the
    producer's loop, must not block and must not raise.
    """

    __slots__ = ("deadline", "records", "taken")

    def __init__(self, records: Sequence[OutRecord], deadline: float | None = None) -> None:
        self.records = records
        self.deadline = deadline
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


class Batch:
    """One encoded record batch and the parcels it was made of."""

    __slots__ = ("base_sequence", "count", "data", "identity", "in_doubt", "spans")

    def __init__(
        self,
        spans: list[tuple[Parcel, int, int]],
        count: int,
        data: bytes | bytearray,
        identity: Identity,
        base_sequence: int,
    ) -> None:
        self.spans = spans
        self.count = count
        self.data = data
        self.identity = identity
        self.base_sequence = base_sequence
        self.in_doubt = False
        """Whether an attempt went out without an answer: the records may be on the topic."""


class Lane:
    """The way to one partition. At most one batch is unresolved; all else waits in `_queue`, in order."""

    def __init__(self, topic: str, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.batch: Batch | None = None
        self.in_flight = False
        self.identity: Identity | None = None
        """Under which the partition is written; None: a fresh one is needed."""
        self.retry_at = 0.0
        self.failures = 0
        """How many attempts in a row have failed."""
        self.trouble: BaseException | None = None
        """Why the last attempt failed; None once one succeeds."""
        self.waiting = 0
        """Records in the queue and in the unresolved batch."""
        self._queue: deque[Parcel] = deque()
        self._head = 0
        self._sequence = 0
        self._caps: list[int] = []

    def put(self, parcel: Parcel) -> None:
        """Append a parcel with at least one record."""
        self._queue.append(parcel)
        self.waiting += len(parcel.records)

    def is_ready(self, now: float) -> bool:
        """Whether there is something to send now."""
        return not self.in_flight and self.waiting > 0 and now >= self.retry_at

    def prepare(self, identity: Identity, limit_bytes: int, compression: str, now_ms: int) -> Batch:
        """The batch to send: the unresolved one again, or a new one of what waits. The lane must be ready."""
        if self.batch is not None and self.batch.identity == identity:
            return self.batch
        if self.identity != identity:
            self.identity = identity
            self._sequence = 0
        if self.batch is not None:
            spans, count = self.batch.spans, self.batch.count
        else:
            spans, count = self._take(limit_bytes)
        data = encode(_records(spans), compression, identity, self._sequence, now_ms)
        self.batch = Batch(spans, count, data, identity, self._sequence)
        return self.batch

    def succeeded(self, offset: int) -> None:
        """The unresolved batch is on the topic, its first record at `offset`, or -1 where the broker forgot."""
        batch = self._resolve()
        self._sequence = (batch.base_sequence + batch.count) & 0x7FFFFFFF
        self._recovered()
        at = offset
        for parcel, first, count in batch.spans:
            parcel.acked(first, count, at)
            if offset >= 0:
                at += count

    def failed(self, error: BaseException, now: float, *, in_doubt: bool = False) -> None:
        """The attempt failed in a way that another may not: send the same batch again after a pause.

        `in_doubt`: the batch may have been appended for all we know.
        """
        self.in_flight = False
        if in_doubt and self.batch is not None:
            self.batch.in_doubt = True
        self.trouble = error
        self.retry_at = now + min(_FIRST_BACKOFF_S * 2.0 ** min(self.failures, 10), _LAST_BACKOFF_S)
        self.failures += 1

    def out_of_sequence(self, error: BaseException, now: float) -> None:
        """The broker does not know where this producer stands: send the batch again under a new identity."""
        self.failed(error, now)
        self.identity = None

    def refused(self, error: BaseException) -> None:
        """The broker refused the batch for its content, and appended nothing of it.

        A batch of several records is halved until the culprit stands alone; its neighbours are delivered.
        """
        batch = self._resolve()
        self._recovered()
        if batch.count == 1:
            ((parcel, first, _),) = batch.spans
            parcel.refused(first, error)
            return
        half = batch.count // 2
        self._caps += [batch.count - half, half]
        self._put_back(batch.spans)

    def next_deadline(self) -> float | None:
        """When `expire` has something to do; deadlines grow along a lane."""
        if self.batch is not None:
            return self.batch.spans[0][0].deadline
        return self._queue[0].deadline if self._queue else None

    def expire(self, now: float, error: BaseException) -> bool:
        """Give up what is past its deadline, in the queue and in the unresolved batch.

        The rest of an unresolved batch is sent again under a fresh identity: after a record that may or may
        not have been appended, nobody knows the next sequence number. True where that is so.
        """
        batch = self.batch
        lost_place = batch is not None and any(_expired(parcel, now) for parcel, _, _ in batch.spans)
        if lost_place:
            self._abandon(lambda parcel: _expired(parcel, now), error)
        while self._queue and _expired(self._queue[0], now):
            self._give_up_head(error)
        return lost_place

    def empty(self, error: BaseException) -> None:
        """Give up everything; used when the producer closes."""
        if self.batch is not None:
            self._abandon(lambda _: True, error)
        while self._queue:
            self._give_up_head(error)

    def drop(self, parcels: set[Parcel]) -> bool:
        """Forget parcels, telling nobody. True where the unresolved batch held some of them: its other records
        are then sent again under a fresh identity."""
        batch = self.batch
        lost_place = batch is not None and any(parcel in parcels for parcel, _, _ in batch.spans)
        if lost_place:
            self._abandon(parcels.__contains__, None)
        if self._queue and self._queue[0] in parcels:
            self.waiting += self._head
            self._head = 0
        kept = deque(parcel for parcel in self._queue if parcel not in parcels)
        self.waiting -= sum(len(parcel.records) for parcel in self._queue if parcel in parcels)
        self._queue = kept
        return lost_place

    def withdraw(self, parcel: Parcel) -> bool:
        """Take a parcel back that cannot be on the topic. False where it is too late or it is not here."""
        if parcel.taken:
            self._unpack()
        if parcel.taken or parcel not in self._queue:
            return False
        self._queue.remove(parcel)
        self.waiting -= len(parcel.records)
        return True

    def _unpack(self) -> None:
        """Put the unresolved batch back into the queue if it is certain that no broker has it; its sequence
        numbers are then free for the next one."""
        if self.batch is None or self.in_flight or self.batch.in_doubt:
            return
        batch = self._resolve()
        self._put_back(batch.spans)
        for parcel, first, _ in batch.spans:
            parcel.taken = first

    def _take(self, limit_bytes: int) -> tuple[list[tuple[Parcel, int, int]], int]:
        cap = self._caps.pop() if self._caps else None
        wanted = cap if cap is not None else self.waiting
        spans: list[tuple[Parcel, int, int]] = []
        taken = size = 0
        while self._queue and taken < wanted:
            parcel = self._queue[0]
            first = last = self._head
            stop = min(len(parcel.records), first + wanted - taken)
            while last < stop:
                size += estimate(parcel.records[last])
                if size > limit_bytes and taken + last - first > 0:
                    break
                last += 1
            if last > first:
                spans.append((parcel, first, last - first))
                taken += last - first
                parcel.taken = max(parcel.taken, last)
            if last < len(parcel.records):
                self._head = last
                break
            self._queue.popleft()
            self._head = 0
        if cap is not None and taken < cap:
            self._caps.append(cap - taken)
        return spans, taken

    def _put_back(self, spans: list[tuple[Parcel, int, int]]) -> None:
        for parcel, first, count in reversed(spans):
            if not (self._queue and self._queue[0] is parcel):
                self._queue.appendleft(parcel)
            self._head = first
            self.waiting += count

    def _abandon(self, is_lost: Callable[[Parcel], bool], error: BaseException | None) -> None:
        batch = self._resolve()
        self.identity = None
        if self._head and is_lost(self._queue[0]):
            self._give_up_head(error)
        self._put_back([span for span in batch.spans if not is_lost(span[0])])
        for parcel, first, count in batch.spans:
            if is_lost(parcel) and error is not None:
                parcel.given_up(first, count, error)

    def _give_up_head(self, error: BaseException | None) -> None:
        parcel, first = self._queue.popleft(), self._head
        self._head = 0
        count = len(parcel.records) - first
        self.waiting -= count
        if error is not None:
            parcel.given_up(first, count, error)

    def _resolve(self) -> Batch:
        batch = self.batch
        assert batch is not None, "no batch is unresolved"
        self.batch = None
        self.in_flight = False
        self.waiting -= batch.count
        return batch

    def _recovered(self) -> None:
        self.trouble = None
        self.failures = 0
        self.retry_at = 0.0


def _expired(parcel: Parcel, now: float) -> bool:
    return parcel.deadline is not None and now >= parcel.deadline


def _records(spans: list[tuple[Parcel, int, int]]) -> Iterator[OutRecord]:
    for parcel, first, count in spans:
        yield from parcel.records[first : first + count] if count < len(parcel.records) else parcel.records
