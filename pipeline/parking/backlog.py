"""What is parked from one staging partition, as its worker knows it: counts, cursors, what is diverted. Sans I/O.

Owns: when something of a name has to follow behind, how far its draining is, the way back to straight delivery,
the checkpoint. Must not know: Kafka, tasks, breakers; the clock is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.park import (
    NOTHING_DIVERTED,
    Checkpoint,
    Choice,
    Cursor,
    Diverted,
    Moved,
    ParkedState,
    diverted_by,
    is_skew,
)
from pipeline.record import ReadRecord

__all__ = ["Backlog", "Partition", "Stray"]

_MAX_UNKNOWN = 500
"""Names of unknown definitions and versions in one partition: anybody can make some up."""


@dataclass(frozen=True, slots=True)
class Stray:
    """Records of one batch that may not go their straight way, in order.

    `ended` is to be told how many of them are parked, `deliver` to be called where they may go straight after all;
    one or the other, never both for one record.
    """

    records: Sequence[ReadRecord]
    ended: Callable[[int], None]
    deliver: Callable[[], None]


class Backlog:
    """What waits of one name from one staging partition, in order: parked, being parked, in the room.

    The room is the way back. While events keep coming, some are always on their way to the parked topic, so that
    its end is never reached. So near the end the backlog opens a room in memory: what comes waits there until
    everything parked has been drained, and then goes straight, behind it. Whatever happens meanwhile, the room can
    be parked instead.
    """

    def __init__(self, name: str, partition: int, reason: str, cursor: Cursor | None = None) -> None:
        self.name = name
        self.partition = partition
        self.reason = reason
        self.cursor = cursor
        """None: nothing of it is acknowledged by the parked topic."""
        self.under_way = 0
        """Records on their way to the parked topic."""
        self.room: list[Stray] | None = None
        self.drained_by: object | None = None
        """Who drains it now; one at a time."""

    @property
    def records(self) -> int:
        """Records parked that have not ended."""
        return self.cursor.records if self.cursor else 0

    def state(self) -> ParkedState | None:
        """A snapshot; None where nothing is acknowledged yet."""
        cursor = self.cursor
        if cursor is None:
            return None
        return ParkedState(
            self.name,
            self.partition,
            cursor.first,
            cursor.last,
            cursor.records,
            cursor.bytes,
            cursor.oldest_at,
            self.reason,
        )


class Partition:
    """All backlogs of one staging partition, from its assignment to its revocation.

    `upto`: what is parked from this offset on is not counted yet. `parks_unknown`: UNKNOWN_DEFINITION=park.
    """

    def __init__(self, number: int, checkpoint: Checkpoint, *, parks_unknown: bool) -> None:
        self.number = number
        self.upto = checkpoint.upto
        self.is_ours = True
        self.revision = 0
        """How often it has changed."""
        self.taken = 0
        """The revision of which the last checkpoint was taken."""
        self.kept = 0
        """The revision of which the last checkpoint was acknowledged."""
        self._parks_unknown = parks_unknown
        self._backlogs = {
            name: Backlog(name, number, cursor.reason, replace(cursor))
            for name, cursor in checkpoint.cursors.items()
        }
        self._seen: frozenset[str] | None = None
        self._diverted = NOTHING_DIVERTED

    def __iter__(self) -> Iterator[Backlog]:
        """The backlogs, oldest first."""
        return iter(list(self._backlogs.values()))

    @property
    def bytes(self) -> int:
        """Bytes parked that have not ended."""
        return sum(backlog.cursor.bytes for backlog in self._backlogs.values() if backlog.cursor)

    def get(self, name: str) -> Backlog | None:
        """The backlog of a name, if there is one."""
        return self._backlogs.get(name)

    def diverted(self, shut: frozenset[str]) -> Diverted:
        """What may not go its straight way: targets that are `shut`, and every name with a backlog. Cheap."""
        if shut is not self._seen:
            self._seen = shut
            names = shut | self._backlogs.keys()
            unknown = sum(map(is_skew, self._backlogs))
            self._diverted = diverted_by(names, parks_unknown=self._parks_unknown and unknown < _MAX_UNKNOWN)
        return self._diverted

    def open(self, name: str, reason: str) -> Backlog:
        """The backlog of a name: from now on all of the name follows behind (T5)."""
        backlog = self._backlogs.get(name)
        if backlog is None:
            backlog = self._backlogs[name] = Backlog(name, self.number, reason)
            self._seen = None
        return backlog

    def parked(self, backlog: Backlog, offset: int, count: int, size: int, now: float) -> None:
        """`count` records of `size` bytes were acknowledged by the parked topic, the first at `offset`.

        -1: the broker does not say where; they stand behind all that is counted.
        """
        first = offset if offset >= 0 else self.upto
        last = first + count - 1
        backlog.under_way -= count
        cursor = backlog.cursor
        if cursor is None:
            backlog.cursor = Cursor(first, last, count, size, now, backlog.reason)
        else:
            cursor.first = min(cursor.first, first)  # lower where somebody has made the topic anew
            cursor.last = max(cursor.last, last)
            cursor.records += count
            cursor.bytes += size
        if offset >= 0:
            self.upto = max(self.upto, last + 1)
        self.revision += 1

    def drained(self, backlog: Backlog, count: int, size: int, next_offset: int, next_at: float) -> None:
        """The next `count` records of a backlog have ended; what is left stands at `next_offset` or behind."""
        cursor = backlog.cursor
        if cursor is not None:
            cursor.first = max(cursor.first, next_offset)
            cursor.records = max(0, cursor.records - count)
            cursor.bytes = max(0, cursor.bytes - size)
            cursor.oldest_at = next_at
            self._moved_on(cursor)

    def moved(self, backlog: Backlog, choice: Choice, count: int, size: int, next_offset: int) -> None:
        """The next `count` chosen records have ended ahead of their turn; what else is chosen stands at
        `next_offset` or behind."""
        cursor = backlog.cursor
        if cursor is not None:
            cursor.records = max(0, cursor.records - count)
            cursor.bytes = max(0, cursor.bytes - size)
            same = [moved for moved in cursor.moved if moved.choice == choice]
            upto = max([next_offset, *(moved.upto for moved in same)])
            cursor.moved = (*(moved for moved in cursor.moved if moved not in same), Moved(choice, upto))
            self.revision += 1

    def passed(self, backlog: Backlog, upto: int) -> None:
        """Everything of the backlog below `upto` has ended. With nothing behind, its name goes straight again."""
        cursor = backlog.cursor
        if cursor is None:
            return
        cursor.first = max(cursor.first, upto)
        self._moved_on(cursor)
        # `last` may be too low, where the broker did not say where a record is; then the count is not 0.
        nothing_left = cursor.first > cursor.last and not cursor.records
        if nothing_left and not backlog.under_way and not backlog.room:
            self.close(backlog)

    def _moved_on(self, cursor: Cursor) -> None:
        cursor.moved = tuple(moved for moved in cursor.moved if moved.upto > cursor.first)
        self.revision += 1

    def close(self, backlog: Backlog) -> list[Stray]:
        """Everything of the backlog has ended: its name goes straight again, first what is in the room."""
        assert not backlog.under_way, "something is on its way to the parked topic"
        del self._backlogs[backlog.name]
        self._seen = None
        self.revision += 1
        room, backlog.room = backlog.room or [], None
        return room

    def low(self) -> int:
        """Everything in the parked partition below this offset has ended."""
        firsts = [backlog.cursor.first for backlog in self._backlogs.values() if backlog.cursor]
        return min(firsts, default=self.upto)

    def checkpoint(self) -> Checkpoint:
        """What to keep, so that the next owner need not read everything."""
        self.taken = self.revision
        return Checkpoint(
            self.upto,
            {name: replace(backlog.cursor) for name, backlog in self._backlogs.items() if backlog.cursor},
        )
