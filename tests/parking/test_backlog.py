"""What a worker knows of a partition's parked events: counts, cursors, what is diverted, the way back (P2 to P5)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.park import Checkpoint, Cursor
from pipeline.parking.backlog import Partition, Stray

EMPTY = Checkpoint(0, {})
NOBODY: frozenset[str] = frozenset()


def fresh(checkpoint: Checkpoint = EMPTY) -> Partition:
    """A partition that was just assigned."""
    return Partition(3, checkpoint, parks_unknown=True)


def test_a_name_is_diverted_from_the_first_event_on_until_it_is_closed() -> None:
    """P2: before the first event is acknowledged by the parked topic, and after the last one was; whether its target
    is shut or not."""
    partition = fresh()
    assert not partition.diverted(NOBODY).targets
    backlog = partition.open("a", "down")
    backlog.under_way += 2
    assert partition.diverted(NOBODY).targets == {"a"}
    assert backlog.state() is None
    partition.parked(backlog, 0, 2, 20, 5.0)
    assert partition.diverted(frozenset({"b"})).targets == {"a", "b"}
    partition.drained(backlog, 2, 20, 2, 5.0)
    assert partition.diverted(NOBODY).targets == {"a"}
    assert partition.close(backlog) == []
    assert not partition.diverted(NOBODY).targets
    assert partition.low() == 2


def test_only_so_many_unknown_names_are_taken() -> None:
    """C3: anybody can make names up; beyond 500 what is unknown is rejected, those that wait keep their order."""
    partition = fresh()
    for number in range(500):
        assert partition.diverted(NOBODY).parks_unknown
        partition.open(f"definition:x{number}", "not known")
    diverted = partition.diverted(NOBODY)
    assert not diverted.parks_unknown
    assert b"x7" in diverted.definitions
    assert not Partition(3, EMPTY, parks_unknown=False).diverted(NOBODY).parks_unknown


def test_a_checkpoint_is_all_there_is_to_know() -> None:
    """P4: the next owner stands where the last one stood; what is parked after it is not in it, and is not counted."""
    partition = fresh()
    backlog = partition.open("a", "down")
    backlog.under_way += 3
    partition.parked(backlog, 10, 2, 20, 5.0)
    checkpoint = partition.checkpoint()
    assert checkpoint == Checkpoint(12, {"a": Cursor(10, 11, 2, 20, 5.0, "down")})
    kept = partition.taken == partition.revision
    partition.parked(backlog, 12, 1, 10, 6.0)
    assert (kept, partition.taken == partition.revision) == (True, False)
    assert checkpoint.upto == 12
    (again,) = fresh(checkpoint)
    assert (again.name, again.records, again.reason) == ("a", 2, "down")
    assert fresh(checkpoint).bytes == 20


def test_an_acknowledgement_without_an_offset_hides_nothing() -> None:
    """P4: where the broker does not say where the events stand, the cursor is at or before them, and the next owner
    reads on from before them."""
    partition = fresh(Checkpoint(7, {}))
    backlog = partition.open("a", "down")
    backlog.under_way += 5
    partition.parked(backlog, -1, 2, 20, 5.0)
    assert backlog.cursor is not None
    assert backlog.cursor.first == partition.upto == partition.low() == 7
    partition.parked(backlog, 9, 3, 30, 5.0)
    assert (backlog.cursor.first, backlog.cursor.last, backlog.records, partition.upto) == (7, 11, 5, 12)


def test_what_is_parked_on_a_topic_made_anew_is_drained() -> None:
    """P3: somebody deletes the parked topic and makes it anew, beneath a worker. What was on it is gone; what is parked
    from then on stands before where the cursor was, and is not passed over."""
    partition = fresh()
    backlog = partition.open("a", "down")
    backlog.under_way += 6
    partition.parked(backlog, 1_000, 5, 50, 5.0)
    partition.parked(backlog, 0, 1, 10, 6.0)
    assert backlog.cursor is not None
    assert backlog.cursor.waits(0, [])
    assert partition.low() == 0


def test_what_waited_in_the_room_is_handed_over_by_closing() -> None:
    """P3: with everything drained, what came meanwhile goes straight, in the order in which it came."""
    partition = fresh()
    backlog = partition.open("a", "down")
    backlog.room = [Stray([], lambda _: None, lambda: None) for _ in range(3)]
    room = list(backlog.room)
    assert partition.close(backlog) == room
    assert partition.get("a") is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5), st.booleans()), max_size=40))
def test_nothing_that_waits_is_ever_deleted(steps: list[tuple[str, int, bool]]) -> None:
    """P3: what may be deleted never reaches what some name still has parked; counts are those of what is parked."""
    partition = fresh()
    offset = 0
    waiting: dict[str, list[int]] = {name: [] for name in "abc"}
    for name, count, drains in steps:
        backlog = partition.open(name, "down")
        if drains and waiting[name]:
            gone, waiting[name] = waiting[name][:count], waiting[name][count:]
            following = waiting[name][0] if waiting[name] else gone[-1] + 1
            partition.drained(backlog, len(gone), len(gone), following, 1.0)
            if not waiting[name]:
                partition.close(backlog)
        else:
            backlog.under_way += count
            partition.parked(backlog, offset, count, count, 1.0)
            waiting[name] += range(offset, offset + count)
            offset += count
        left = [first for offsets in waiting.values() for first in offsets]
        assert partition.low() <= min(left, default=offset)
        assert left or partition.low() == offset
        assert partition.bytes == len(left)
        assert {b.name: b.records for b in partition if b.cursor} == {
            n: len(o) for n, o in waiting.items() if o
        }
