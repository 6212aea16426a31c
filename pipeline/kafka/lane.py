"""The order of one partition: a FIFO of records of which one batch at a time is unresolved. Sans I/O.

Owns: what is sent next, what a refusal, a retry or a deadline means for the records behind it.
Must not know: sockets, the event loop. The clock is handed in.

One unresolved batch makes every question about order simple: a batch that failed is sent again before
anything behind it, under the same producer id and sequence number, so that a broker that has it already
answers without appending it twice (KIP-98).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from pipeline.kafka.batch import Batch, Parcel, Span, count_of, tell, tell_acked
from pipeline.kafka.encoding import Identity, encode
from pipeline.packing import PACKED_OVERHEAD
from pipeline.record import Record
from pipeline.staging import batch_bytes

__all__ = ["Batch", "Lane", "Parcel"]

_FIRST_BACKOFF_S = 0.05
_LAST_BACKOFF_S = 1.0
_EXPIRY_GRAIN_S = 0.1
_SEQUENCE_MASK = 0x7FFFFFFF


class Lane:
    """The way to one partition. At most one batch is unresolved; all else waits, in order."""

    __slots__ = (
        "_again",
        "_queue",
        "_sequence",
        "batch",
        "deadline",
        "failures",
        "identity",
        "in_flight",
        "partition",
        "progress",
        "retry_at",
        "spent",
        "topic",
        "trouble",
        "waiting",
    )

    def __init__(self, topic: str, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.batch: Batch | None = None
        self.in_flight = False
        self.identity: Identity | None = None
        """Under which the partition is written; None: one is needed that is not `spent`."""
        self.spent: Identity | None = None
        """The identity before it. Nobody knows its next sequence number, so it must not be used here again:
        the broker could take a new batch for one that it has."""
        self.retry_at = 0.0
        self.failures = 0
        """How many attempts in a row have failed."""
        self.trouble: BaseException | None = None
        """Why the last attempt failed; None once one succeeds."""
        self.progress = 0
        """Changes with each batch that is resolved, however it ended."""
        self.waiting = 0
        """Records that have not ended: in the queue, to be sent again, in the unresolved batch."""
        self.deadline: float | None = None
        """`expire` has nothing to do before."""
        self._queue: deque[Span] = deque()
        self._again: deque[Batch] = deque()
        """What is left of batches that were refused or broken up, to be sent ahead of the queue."""
        self._sequence = 0

    def put(self, parcel: Parcel) -> None:
        """Append a parcel with at least one record."""
        count = len(parcel.records)
        self._queue.append((parcel, 0, count))
        self.waiting += count
        deadline = parcel.deadline
        if deadline is not None and (self.deadline is None or deadline < self.deadline):
            self.deadline = deadline

    def is_ready(self, now: float) -> bool:
        """Whether there is something to send now."""
        return not self.in_flight and self.waiting > 0 and now >= self.retry_at

    def prepare(self, identity: Identity, limit_bytes: int, compression: str, now_ms: int) -> Batch:
        """The batch to send: the unresolved one again, or a new one of what waits. The lane must be ready.

        Raises whatever encoding raises; the batch is then unresolved, to be `refused`.
        """
        if identity != self.identity:
            assert identity != self.spent, "an identity that lost its place was used again"
            self.identity = identity
            self._sequence = 0
        batch = self.batch
        if batch is None:
            batch = self.batch = self._next_batch(limit_bytes)
        if batch.identity != identity:
            batch.data = encode(batch.records(), compression, identity, self._sequence, now_ms)
            batch.base_sequence = self._sequence
            batch.identity = identity
        return batch

    def succeeded(self, offset: int) -> None:
        """The unresolved batch is on the topic, its first record at `offset`, or -1 where the broker forgot."""
        batch = self._resolve()
        self._sequence = (batch.base_sequence + batch.count) & _SEQUENCE_MASK
        if self.failures:
            self._recovered()
        tell_acked(batch.spans, offset)

    def failed(self, error: BaseException, now: float, *, in_doubt: bool = False) -> None:
        """The attempt failed in a way that another may not: send the same batch again after a pause.

        `in_doubt`: the batch may have been appended for all we know.
        """
        self.in_flight = False
        if self.batch is not None:
            self.batch.in_doubt = self.batch.in_doubt or in_doubt
            for parcel, _, _ in self.batch.spans:
                parcel.retries += 1
        self.trouble = error
        self.retry_at = now + min(_FIRST_BACKOFF_S * 2.0 ** min(self.failures, 10), _LAST_BACKOFF_S)
        self.failures += 1

    def out_of_sequence(self, error: BaseException, now: float) -> None:
        """The broker does not know where this producer stands: send the batch again under a new identity."""
        self.failed(error, now)
        self._lose_place()

    def refused(self, error: BaseException, now: float) -> None:
        """The batch was refused for its content, and nothing of it appended.

        A batch of several records is halved until the culprit stands alone; its neighbours are delivered. One whose
        parcel insists is sent again after a pause.
        """
        assert self.batch is not None
        if self.batch.count == 1 and self.batch.spans[0][0].insists:
            self.failed(error, now)
            return
        batch = self._resolve()
        self._recovered()
        if batch.in_doubt:  # it was not appended now, but maybe before
            self._lose_place()
        if batch.count == 1:
            ((parcel, first, _),) = batch.spans
            tell(parcel.refused, first, error)
        else:
            self._again.extendleft(reversed(batch.halves()))
            self.waiting += batch.count

    def expire(self, now: float, error: BaseException) -> None:
        """Give up what is past its deadline, wherever it waits; to be called at `deadline`.

        The rest of an unresolved batch is sent again, where need be under a fresh identity: after a record that
        may or may not have been appended, nobody knows the next sequence number.
        """
        expired = self._discard(lambda parcel: parcel.deadline is not None and now >= parcel.deadline)
        left = [parcel.deadline for parcel, _, _ in self._spans() if parcel.deadline is not None]
        # Not sooner than a moment from now: thousands that expire one by one are not each worth a walk.
        self.deadline = max(min(left), now + _EXPIRY_GRAIN_S) if left else None
        self._give_up(expired, error)

    def empty(self, error: BaseException) -> None:
        """Give up everything."""
        self._give_up(self._discard(lambda _: True), error)

    def evict(self) -> list[Parcel]:
        """Take everything out, in order, telling nobody; `taken` says how much of a parcel may be on the topic."""
        self.progress += 1
        return list(dict.fromkeys(parcel for parcel, _, _ in self._discard(lambda _: True)))

    def drop(self, parcels: set[Parcel]) -> None:
        """Forget parcels, telling nobody. What else the unresolved batch held is sent again."""
        self._discard(parcels.__contains__)

    def withdraw(self, parcel: Parcel) -> bool:
        """Take a parcel back that cannot be on the topic. False where it is too late or it is not here."""
        if parcel.taken:
            self._unpack()
        if parcel.taken:
            return False
        try:
            self._queue.remove((parcel, 0, len(parcel.records)))
        except ValueError:
            return False
        self.waiting -= len(parcel.records)
        return True

    def _next_batch(self, limit_bytes: int) -> Batch:
        if self._again:
            return self._again.popleft()
        spans: list[Span] = []
        taken = size = 0
        queue = self._queue
        while queue:
            span = queue.popleft()
            parcel, first, count = span
            whole = parcel.size
            if first == 0 and whole is not None and size + whole <= limit_bytes:
                taken, size = taken + count, size + whole  # all of it, without a look at each
                parcel.taken = count
                spans.append(span)
                continue
            records = parcel.records
            at, stop = first, first + count
            while at < stop:
                size += _size(records[at])
                if size > limit_bytes and taken:
                    break
                at += 1
                taken += 1
            if at > first:
                spans.append((parcel, first, at - first))
                parcel.taken = at
            if at < stop:
                queue.appendleft((parcel, at, stop - at))
                break
        return Batch(spans, taken)

    def _unpack(self) -> None:
        """Put the unresolved batch back into the queue if it is certain that no broker has it; its sequence
        numbers are then free for the next one."""
        if self.batch is None or self.in_flight or self.batch.in_doubt or self._again:
            return
        batch = self._resolve()
        self.waiting += batch.count
        for parcel, first, count in reversed(batch.spans):
            if self._queue and self._queue[0][0] is parcel:
                count += self._queue.popleft()[2]
            self._queue.appendleft((parcel, first, count))
            parcel.taken = first

    def _discard(self, is_gone: Callable[[Parcel], bool]) -> list[Span]:
        """Remove parcels wherever they wait; their spans, in order. Breaks the unresolved batch up if it holds some."""
        if self.batch is not None and any(is_gone(parcel) for parcel, _, _ in self.batch.spans):
            self._break_up()
        gone = [span for span in self._spans() if is_gone(span[0])]
        if gone:
            again = (batch.without(is_gone) for batch in self._again)
            self._again = deque(batch for batch in again if batch.count)
            self._queue = deque(span for span in self._queue if not is_gone(span[0]))
            self.waiting -= count_of(gone)
            if not self.waiting:
                self._recovered()  # what comes next is not in the trouble of what was taken out
        return gone

    def _break_up(self) -> None:
        """Take the unresolved batch back, to be sent again with other contents."""
        was_in_flight = self.in_flight
        batch = self._resolve()
        batch.in_doubt = batch.in_doubt or was_in_flight
        if batch.in_doubt:
            self._lose_place()
        self.waiting += batch.count
        self._again.appendleft(batch)

    def _spans(self) -> Iterator[Span]:
        if self.batch is not None:
            yield from self.batch.spans
        for batch in self._again:
            yield from batch.spans
        yield from self._queue

    @staticmethod
    def _give_up(spans: list[Span], error: BaseException) -> None:
        for parcel, first, count in spans:
            tell(parcel.given_up, first, count, error)

    def _lose_place(self) -> None:
        """Stop using the identity: whether its last sequence numbers were used up is not known."""
        if self.identity is not None:
            self.spent = self.identity
        self.identity = None
        if self.batch is not None:
            self.batch.identity = None

    def _resolve(self) -> Batch:
        batch = self.batch
        assert batch is not None, "no batch is unresolved"
        self.batch = None
        self.in_flight = False
        self.progress += 1
        self.waiting -= batch.count
        return batch

    def _recovered(self) -> None:
        self.trouble = None
        self.failures = 0
        self.retry_at = 0.0


def _size(record: Record) -> int:
    return len(record) + PACKED_OVERHEAD if isinstance(record, bytes) else batch_bytes(*record)
