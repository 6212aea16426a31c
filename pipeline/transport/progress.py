"""How far one staging partition is: what is handed out next, what is unfinished, what may be committed. Sans I/O.

Owns: the prefix rule (T6), how much may be unfinished, the rule that nothing fetched is lost by waiting.
Must not know: Faust, Kafka clients, what delivering means.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from pipeline.record import ReadRecord

__all__ = ["Batch", "Memory", "Progress"]

_RECORD_BYTES = 2_400
"""What one small record takes while it is under way, as read and as framed, beside its payload (measured)."""


class Memory:
    """What the unfinished records of all partitions may take together, in bytes.

    Each partition may hold as much as is still free. So one that stands still takes half, two a third each, and
    so on: whatever stands still, the others keep a share.
    """

    __slots__ = ("_size", "free", "record_bytes")

    def __init__(self, size_bytes: int) -> None:
        self._size = size_bytes
        self.free = size_bytes
        self.record_bytes = math.inf
        """What a record takes, by the list that came last."""

    def stretch(self, records: int, most: int) -> int:
        """How many lists of so many records may come as one, at most `most`: as many as three quarters of the memory
        still hold. The rest is for partitions that go on while one stands still."""
        return max(1, min(most, int((self.free - self._size / 4) / (records * self.record_bytes))))


class Batch:
    """Consecutive staging records of one partition, handed out together.

    `state`: `waiting` (handed out, nobody began it), `begun`, `done` (then `records` is empty), or `dropped`
    (never to be begun: its records will be fetched again).
    """

    __slots__ = ("first_offset", "next_offset", "owner", "partition", "records", "size", "state", "topic")

    def __init__(
        self, topic: str, partition: int, records: Sequence[ReadRecord], next_offset: int, owner: Progress
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.records = records
        self.first_offset = records[0].offset
        self.next_offset = next_offset
        # A value is held twice: as it was read, and in the record that is to be sent.
        self.size = sum(2 * len(record.value or b"") + _RECORD_BYTES for record in records)
        self.owner = owner
        self.state = "waiting"


class Progress:
    """One partition, from its assignment to its revocation.

    `expected` is the truth about what comes next: the offset after the last record handed out. Whatever the
    fetcher returns is measured against it, so a list that was dropped anywhere cannot go unnoticed. Fetches are
    numbered: a list may come from a fetch that began before the consumer was told to go elsewhere.

    `ahead`: how many records may lie between the first that is unfinished and the next to hand out.
    """

    def __init__(self, topic: str, partition: int, ahead: int, memory: Memory) -> None:
        self.topic = topic
        self.partition = partition
        self.expected: int | None = None
        self.committable: int | None = None
        """The offset up to which everything has reached an end; None: nothing since the assignment."""
        self.cause: str = ""
        """Why the partition waits; empty where it does not."""
        self._ahead = ahead
        self._memory = memory
        self._unfinished: deque[Batch] = deque()
        self._size = 0
        self._certain_from: int | None = None
        """The number of the first fetch that is certain to have begun at `expected`."""

    @property
    def is_full(self) -> bool:
        """Whether as much is unfinished as may be; never where nothing is."""
        if not self._unfinished or self.expected is None:
            return False
        ahead = self.expected - self._unfinished[0].first_offset
        return ahead >= self._ahead or self._size >= self._memory.free

    @property
    def begun(self) -> list[Batch]:
        """The batches somebody is working on."""
        return [batch for batch in self._unfinished if batch.state == "begun"]

    @property
    def is_idle(self) -> bool:
        """Whether nothing is unfinished."""
        return not self._unfinished

    @property
    def unfinished_from(self) -> int | None:
        """The offset of the first record that was handed out and has not ended; None where there is none."""
        return self._unfinished[0].first_offset if self._unfinished else None

    def stands_at(self, offset: int, fetch: int | None) -> None:
        """The consumer was told to read from here, and did before fetch number `fetch`; None: perhaps never."""
        self.expected = offset
        self._certain_from = fetch

    def must_seek(self, offset: int, fetch: int) -> int | None:
        """Whether a list that was read from this offset on leaves out records; then the offset to go back to.

        A jump in a fetch that certainly began at `expected` is a true gap of the log (retention) and is accepted.
        """
        if self.expected is None or offset <= self.expected:
            return None
        if self._certain_from is not None and fetch >= self._certain_from:
            return None
        return self.expected

    def hand_out(self, records: Sequence[ReadRecord], position: int | None = None) -> Batch | None:
        """The batch to hand out for fetched records; None where all of them were handed out before.

        `position`: where the consumer stands after them, behind markers of transactions for instance.
        """
        if self.expected is not None and records[0].offset < self.expected:
            records = [record for record in records if record.offset >= self.expected]
            if not records:
                return None
        self.expected = max(position or 0, records[-1].offset + 1)
        batch = Batch(self.topic, self.partition, records, self.expected, self)
        self._certain_from = None
        self._memory.record_bytes = batch.size / len(records)
        self._unfinished.append(batch)
        self._take(batch.size)
        return batch

    def leave_out(self, offset: int) -> None:
        """A list that was read from this offset on is not handed out, for the partition waits: it comes again."""
        if self.expected is None:
            self.expected = offset

    def begin(self, batch: Batch) -> bool:
        """Whether the batch may be worked on; it then must end by `finish`, or by `hold_at`."""
        if batch.state != "waiting":
            return False
        batch.state = "begun"
        return True

    def finish(self, batch: Batch) -> None:
        """Every record of the batch reached an end. What may be committed is the finished prefix, never more."""
        if batch.state != "begun":
            return
        batch.state = "done"
        batch.records = ()
        self._take(-batch.size)
        while self._unfinished and self._unfinished[0].state == "done":
            self.committable = self._unfinished.popleft().next_offset

    def hold(self, cause: str) -> None:
        """Wait: take back what nobody began; it will be fetched again from where `expected` then stands."""
        self.cause = cause
        while self._unfinished and self._unfinished[-1].state == "waiting":
            batch = self._unfinished.pop()
            batch.state = "dropped"
            self.expected = batch.first_offset
            self._take(-batch.size)

    def hold_at(self, batch: Batch, cause: str) -> None:
        """Wait with this batch, which was begun but of which nothing was written: it and all behind it go back.

        Raises `ValueError` where it was not begun, or something behind it was: order would be lost.
        """
        behind = (other for other in self._unfinished if other.first_offset > batch.first_offset)
        if batch.state != "begun" or any(other.state != "waiting" for other in behind):
            raise ValueError("only the last batch that was begun can be given back")
        batch.state = "waiting"
        self.hold(cause)

    def release(self, fetch: int) -> None:
        """Go on. The consumer was told to read from `expected`, and did before fetch number `fetch`."""
        self.cause = ""
        self._certain_from = fetch

    def revoke(self) -> list[Batch]:
        """The partition goes to somebody else. Returns what is still being worked on; it is not waited for."""
        abandoned = self.begun
        for batch in self._unfinished:
            batch.state = "dropped"
        self._unfinished.clear()
        self._take(-self._size)
        return abandoned

    def _take(self, size: int) -> None:
        self._size += size
        self._memory.free -= size
