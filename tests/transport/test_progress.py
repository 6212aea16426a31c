"""The rules of one staging partition (T5, T6), against a model that keeps every record apart."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.record import RawHeaders
from pipeline.transport.progress import Batch, Memory, Progress

AHEAD = 12
MEMORY = 60_000  # some twenty records
GAP = frozenset({4, 20, 21, 22, 45})  # offsets without a record: markers of transactions, compaction
LOG = tuple(offset for offset in range(400) if offset not in GAP)
LIST = 5  # records in a fetched list, at most


@dataclass(frozen=True)
class Staged:
    """A staging record of which only the offset matters."""

    offset: int
    key: bytes | None = None
    value: bytes | None = b"x"
    headers: RawHeaders = field(default=())
    timestamp: int = 0


def records(*offsets: int) -> list[Staged]:
    """Staging records at these offsets."""
    return [Staged(offset) for offset in offsets]


def progress(ahead: int = AHEAD, memory: Memory | None = None) -> Progress:
    """A partition that stands at offset 0, as fetch 1 finds it."""
    one = Progress("staging", 0, ahead, memory or Memory(1_000_000))
    one.stands_at(0, 1)
    return one


def hand_out(one: Progress, *offsets: int) -> Batch:
    """Hand out a list that must not be empty."""
    batch = one.hand_out(records(*offsets))
    assert batch is not None
    return batch


def is_full(one: Progress) -> bool:
    """Whether it takes no more now; a call, so that mypy does not take the answer for one that stays."""
    return one.is_full


class OnePartition(RuleBasedStateMachine):
    """Fetches, seeks, agents and rebalances in any order, driven as the consumer drives them.

    The model owns each offset by at most one batch; the fetcher has a position of its own, which lists that are
    on their way, seeks and dropped lists move about.
    """

    def __init__(self) -> None:
        super().__init__()
        self.committed = 0
        self.log_start = 0
        self.deleted: set[int] = set()
        self.assign()

    def assign(self) -> None:
        """A fresh assignment, at the committed offset."""
        self.memory = Memory(MEMORY)
        self.progress = Progress("staging", 0, AHEAD, self.memory)
        self.fetch = 0
        self.position = self.committed
        self.owned: dict[int, Batch] = {}  # offset -> the batch that has it now
        self.finished: set[int] = set()
        self.batches: list[Batch] = []
        self.on_its_way: tuple[int, int, list[Staged], int] | None = None
        self.is_certain = True

    @initialize(start=st.sampled_from([None, 0, 7]))
    def assigned(self, start: int | None) -> None:
        """A group with or without a committed offset."""
        if start is not None:
            self.committed = self.position = start
            self.progress.stands_at(start, 1 if start else None)

    # -- the fetcher: a list is popped at one time and arrives at another

    @precondition(lambda self: self.on_its_way is None)
    @rule(count=st.integers(1, LIST))
    def fetch_begins(self, count: int) -> None:
        """The fetcher takes a list at its position; what happens before it arrives is up to the other rules."""
        self.fetch += 1
        start = self.position = max(self.position, self.log_start)
        found = [offset for offset in LOG if offset >= self.position][:count]
        if found:
            self.position = found[-1] + 1
            while self.position in GAP:
                self.position += 1
            self.on_its_way = (self.fetch, start, records(*found), self.position)

    @precondition(lambda self: self.on_its_way is not None)
    @rule()
    def fetch_arrives(self) -> None:
        """The consumer deals with the list as `Consumer._hand_out` does."""
        assert self.on_its_way is not None
        fetch, start, found, end = self.on_its_way
        self.on_its_way = None
        if self.progress.cause:
            self.progress.leave_out(start)
            return
        expected = self.progress.expected
        back_to = self.progress.must_seek(start, fetch)
        if back_to is not None:
            assert back_to == expected
            self.position = back_to
            self.progress.stands_at(back_to, self.fetch + 1)
            self.is_certain = True
            return
        if expected is not None:
            left_out = {o for o in LOG if expected <= o < found[0].offset}
            self.deleted |= {o for o in left_out if o < self.log_start}
            assert left_out <= self.deleted, f"skipped {left_out - self.deleted} without a seek"
        batch = self.progress.hand_out(found, end)
        new = [record.offset for record in found if expected is None or record.offset >= expected]
        if batch is None:
            assert not new, f"did not hand out {new}"
            return
        self.is_certain = False
        assert [record.offset for record in batch.records] == new
        for offset in new:
            assert offset not in self.owned, f"{offset} was handed out twice"
            self.owned[offset] = batch
        self.batches.append(batch)

    @precondition(lambda self: self.on_its_way is None)
    @rule(counts=st.lists(st.integers(1, LIST), min_size=1, max_size=4))
    def fetches(self, counts: list[int]) -> None:
        """Fetches that nothing comes in between."""
        for count in counts:
            self.fetch_begins(count)
            if self.on_its_way is not None:
                self.fetch_arrives()

    def position_moves(self, back: int, ahead: int) -> None:
        """Something else moves the fetcher: lists repeat, overlap, or jump."""
        if self.is_certain:  # between a seek and the first list nothing takes records away
            ahead = 0
        self.position = min(max(self.committed, self.position - back) + ahead, LOG[-1])

    # -- the agents

    @precondition(lambda self: any(batch.state == "waiting" for batch in self.batches))
    @rule(count=st.integers(1, 4))
    def begins(self, count: int) -> None:
        """The agent begins the first batches that wait; it takes them in order."""
        for batch in [batch for batch in self.batches if batch.state == "waiting"][:count]:
            assert self.progress.begin(batch)
            assert not self.progress.begin(batch)

    @precondition(lambda self: bool(self.progress.begun))
    @rule(data=st.data())
    def finishes(self, data: st.DataObject) -> None:
        """Any batch that was begun may end next."""
        batch = data.draw(st.sampled_from(self.progress.begun))
        offsets = [record.offset for record in batch.records]
        self.progress.finish(batch)
        self.progress.finish(batch)  # says it again: nothing happens
        self.finished.update(offsets)

    @rule(kind=st.sampled_from(["late", "hold", "give back", "revoke", "move", "retention"]), data=st.data())
    def is_disturbed(self, kind: str, data: st.DataObject) -> None:
        """One of the things that happen now and then."""
        if kind == "late":
            self.late_words()
        elif kind == "hold":
            self.holds()
        elif kind == "give back" and self.progress.begun:
            self.gives_back()
        elif kind == "revoke":
            self.revoked()
        elif kind == "retention":
            self.log_start += data.draw(st.integers(0, 10))
        elif kind == "move":
            self.position_moves(data.draw(st.integers(0, 30)), data.draw(st.integers(0, 8)))

    def late_words(self) -> None:
        """A batch that was dropped or is done is neither begun nor finished by a late word."""
        for batch in self.batches:
            before = batch.state
            if before in ("dropped", "done"):
                assert not self.progress.begin(batch)
                self.progress.finish(batch)
                assert batch.state == before

    def holds(self) -> None:
        """The partition is told to wait."""
        self.progress.hold("a cause")
        self.forget_dropped()

    def gives_back(self) -> None:
        """The agent gives back the batch it began last, if it is not too late."""
        last = self.progress.begun[-1]
        behind = [batch for batch in self.batches if batch.first_offset > last.first_offset]
        if any(batch.state == "done" for batch in behind):
            with pytest.raises(ValueError, match="begun"):
                self.progress.hold_at(last, "a cause")
            return
        self.progress.hold_at(last, "a cause")
        assert last.state == "dropped"
        self.forget_dropped()

    @precondition(lambda self: self.progress.cause)
    @rule()
    def releases(self) -> None:
        """The partition goes on: first the seek, then the word."""
        if self.progress.expected is not None:
            self.position = self.progress.expected
        self.progress.release(self.fetch + 1)
        self.is_certain = True

    def revoked(self) -> None:
        """The partition goes, what is committed stays, and it comes back."""
        if self.progress.committable is not None:
            self.committed = self.progress.committable
        begun = self.progress.begun
        assert self.progress.revoke() == begun
        assert all(batch.state in ("dropped", "done") for batch in self.batches)
        assert self.memory.free == MEMORY
        self.assign()
        self.progress.stands_at(self.committed, 1 if self.committed else None)

    def forget_dropped(self) -> None:
        """What was dropped belongs to nobody until it is fetched again."""
        self.owned = {offset: batch for offset, batch in self.owned.items() if batch.state != "dropped"}

    # -- what always holds

    @invariant()
    def commits_the_finished_prefix(self) -> None:
        """T6: everything below the committable offset has reached an end."""
        upto = self.progress.committable
        if upto is not None:
            ended = self.finished | self.deleted
            unfinished = [o for o in LOG if self.committed <= o < upto and o not in ended]
            assert not [o for o in unfinished if o in self.owned or o >= self.first], unfinished

    @invariant()
    def commits_all_of_it(self) -> None:
        """A finished prefix is not held back: else the last events of a day would come again with every deploy."""
        open_offsets = [offset for offset in self.owned if offset not in self.finished]
        if self.owned and not open_offsets:
            assert self.progress.committable is not None
            assert set(range(max(self.owned) + 1, self.progress.committable)) <= GAP

    @invariant()
    def is_bounded(self) -> None:
        """It says that it is full once the window or the memory is used up; with nothing unfinished never."""
        open_offsets = [offset for offset in self.owned if offset not in self.finished]
        if not open_offsets:
            assert not self.progress.is_full
        elif self.progress.expected is not None and self.progress.expected - min(open_offsets) >= AHEAD:
            assert self.progress.is_full

    @invariant()
    def counts_its_memory(self) -> None:
        """What unfinished batches take is what is missing from the memory; finished ones hold no records."""
        taken = sum(batch.size for batch in self.batches if batch.state in ("waiting", "begun"))
        assert self.memory.free == MEMORY - taken
        assert not [batch for batch in self.batches if batch.state == "done" and batch.records]

    @property
    def first(self) -> int:
        """The first offset this assignment has handed out."""
        return min(self.owned, default=0)


def test_nothing_is_lost_when_the_first_list_is_left_out() -> None:
    """T6: in a group without committed offsets, too, a list that comes while the partition waits comes again."""
    one = Progress("staging", 0, AHEAD, Memory(MEMORY))
    one.hold("an operator")
    one.leave_out(5)
    one.leave_out(9)
    one.release(3)
    assert one.expected == 5
    assert one.must_seek(9, 2) == 5


def test_stale_list_after_a_release_is_no_gap_of_the_log() -> None:
    """T6: a list that was under way when the partition was released does not pass for a gap; a later one does."""
    one = progress()
    batch = hand_out(one, 0, 1)
    hand_out(one, 2, 3)
    assert one.begin(batch)
    one.hold("a target is not known")
    one.release(8)
    assert one.must_seek(4, 7) == 2
    assert one.must_seek(4, 8) is None


def test_a_partition_is_full_by_distance() -> None:
    """T5: what a crash repeats is bounded, also where only the oldest batch is unfinished."""
    one = progress(ahead=4)
    oldest = hand_out(one, 0)
    assert one.begin(oldest)
    for offset in (1, 2):
        later = hand_out(one, offset)
        assert one.begin(later)
        one.finish(later)
        assert not is_full(one)
    hand_out(one, 3)
    assert is_full(one)
    assert one.committable is None
    one.finish(oldest)
    assert not is_full(one)


def test_partitions_that_stand_still_leave_room_for_the_others() -> None:
    """Memory is bounded over all partitions, and fairly: one that stands still takes half, two a third each."""
    memory = Memory(MEMORY)
    first, second, third = (progress(10_000, memory) for _ in range(3))
    taken = 0
    while not is_full(first):
        hand_out(first, taken)
        taken += 1
    assert 0.4 * MEMORY < memory.free < 0.5 * MEMORY + 1
    count = 0
    while not is_full(second):
        hand_out(second, count)
        count += 1
    assert count > 4  # a share, although the first came before it
    assert not is_full(third)
    hand_out(third, 0)
    assert not is_full(third)
    first.revoke()
    assert not is_full(second)  # what one gave back another may take


def test_a_payload_counts() -> None:
    """Memory counts payloads: a thousand large records are not a thousand small ones."""
    memory = Memory(10_000_000)
    one = progress(10_000, memory)
    batch = one.hand_out([Staged(0, value=b"x" * 6_000_000)])
    assert batch is not None
    assert is_full(one)
    assert one.begin(batch)
    one.finish(batch)
    assert memory.free == 10_000_000


TestOnePartition = OnePartition.TestCase
TestOnePartition.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)


def test_a_list_is_as_long_as_three_quarters_of_the_memory_still_hold() -> None:
    """T5: lists are long only while there is room for them, by what records took that came last."""
    one = Progress("staging", 0, 100, memory := Memory(160_000))
    assert memory.stretch(10, 12) == 1  # nothing is known of records
    batch = one.hand_out(records(0, 1))
    assert batch is not None
    assert memory.record_bytes == batch.size / 2
    assert memory.stretch(10, 12) == int((120_000 - batch.size) / (10 * memory.record_bytes)) == 4
    assert memory.stretch(10, 2) == 2
    memory.free = 40_000
    assert memory.stretch(10, 12) == 1
    memory.free = 0
    assert memory.stretch(10, 12) == 1
