"""How far one staging partition is: what is handed out next, what is unfinished, what may be committed. Sans I/O.

Owns: the prefix rule (T6), the window of unfinished batches, the rule that nothing fetched is lost by waiting.
Must not know: Faust, Kafka clients, what delivering means.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from pipeline.plan import StagedRecord

__all__ = ["Batch", "Progress"]


class Batch:
    """Consecutive staging records of one partition, handed out together.

    `state`: `waiting` (handed out, nobody began it), `begun`, `done`, or `dropped` (never to be begun: its
    records will be fetched again).
    """

    __slots__ = ("next_offset", "owner", "partition", "records", "state", "topic")

    def __init__(self, topic: str, partition: int, records: Sequence[StagedRecord], owner: Progress) -> None:
        self.topic = topic
        self.partition = partition
        self.records = records
        self.next_offset = records[-1].offset + 1
        self.owner = owner
        self.state = "waiting"

    @property
    def first_offset(self) -> int:
        """Offset of the first record."""
        return self.records[0].offset


class Progress:
    """One partition, from its assignment to its revocation.

    `expected` is the truth about what comes next: the offset after the last record handed out. Whatever the
    fetcher returns is measured against it, so a list that was dropped anywhere cannot go unnoticed.
    """

    def __init__(self, topic: str, partition: int, window: int) -> None:
        self.topic = topic
        self.partition = partition
        self.expected: int | None = None
        self.committable: int | None = None
        """The offset up to which everything has reached an end; None: nothing since the assignment."""
        self.cause: str = ""
        """Why the partition waits; empty where it does not."""
        self.revoked = False
        self._window = window
        self._unfinished: deque[Batch] = deque()
        self._sought: int | None = None

    @property
    def is_full(self) -> bool:
        """Whether as many batches are unfinished as may be."""
        return len(self._unfinished) >= self._window

    @property
    def begun(self) -> list[Batch]:
        """The batches somebody is working on."""
        return [batch for batch in self._unfinished if batch.state == "begun"]

    def starts_at(self, offset: int) -> None:
        """The consumer was told to read from here (assignment, seek)."""
        self.expected = offset
        self._sought = offset

    def must_seek(self, first_offset: int) -> int | None:
        """Whether a fetched list beginning at `first_offset` leaves out records; then the offset to go back to.

        A jump that is still there after seeking is a true gap of the log (transaction markers, deleted
        records) and is accepted.
        """
        if self.expected is None or first_offset <= self.expected or self._sought == self.expected:
            return None
        return self.expected

    def hand_out(self, records: Sequence[StagedRecord]) -> Batch | None:
        """The batch to hand out for fetched records; None where all of them were handed out before."""
        if self.expected is not None and records[0].offset < self.expected:
            records = [record for record in records if record.offset >= self.expected]
            if not records:
                return None
        batch = Batch(self.topic, self.partition, records, self)
        self.expected = batch.next_offset
        self._sought = None
        self._unfinished.append(batch)
        return batch

    def begin(self, batch: Batch) -> bool:
        """Whether the batch may be worked on; it then must end by `finish`, or by `drop_begun`."""
        if batch.state != "waiting" or self.revoked:
            return False
        batch.state = "begun"
        return True

    def finish(self, batch: Batch) -> None:
        """Every record of the batch reached an end. What may be committed is the finished prefix, never more."""
        if batch.state != "begun":
            return
        batch.state = "done"
        while self._unfinished and self._unfinished[0].state == "done":
            self.committable = self._unfinished.popleft().next_offset

    def hold(self, cause: str) -> None:
        """Wait: take back what nobody began; it will be fetched again from where `expected` then stands."""
        self.cause = cause
        while self._unfinished and self._unfinished[-1].state == "waiting":
            batch = self._unfinished.pop()
            batch.state = "dropped"
            self.expected = batch.first_offset

    def hold_at(self, batch: Batch, cause: str) -> None:
        """Wait with this batch, which was begun but of which nothing was written: it and all behind it go back."""
        batch.state = "waiting"
        self.hold(cause)

    def release(self) -> int | None:
        """Go on: the offset to seek to, or None where nothing was handed out yet."""
        self.cause = ""
        self._sought = self.expected
        return self.expected

    def revoke(self) -> list[Batch]:
        """The partition goes to somebody else. Returns what is still being worked on; it is not waited for."""
        self.revoked = True
        abandoned = self.begun
        for batch in self._unfinished:
            batch.state = "dropped"
        self._unfinished.clear()
        return abandoned
