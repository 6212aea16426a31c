"""What a lane does in cases that random schedules rarely reach, one by one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pipeline.kafka.encoding import Identity, Unencodable
from pipeline.kafka.lane import Batch, Lane, Parcel
from pipeline.record import OutRecord

FIRST, SECOND = Identity(1, 0), Identity(2, 0)
NO_LIMIT = 1 << 20


class Noting(Parcel):
    """Notes its ends as `index: end`."""

    __slots__ = ("ends",)
    records: Sequence[OutRecord]

    def __init__(self, *values: bytes, deadline: float | None = None) -> None:
        super().__init__([(None, value, []) for value in values], deadline)
        self.ends: dict[int, str] = {}

    def acked(self, first: int, count: int, offset: int) -> None:
        """Note the offset of each, -1 where it is not known."""
        for step in range(count):
            self.ends[first + step] = f"at {offset + step}" if offset >= 0 else "somewhere"

    def refused(self, index: int, error: BaseException) -> None:
        """Note why."""
        self.ends[index] = f"refused: {error}"

    def given_up(self, first: int, count: int, error: BaseException) -> None:
        """Note why."""
        self.ends.update(dict.fromkeys(range(first, first + count), f"given up: {error}"))


def lane_with(*parcels: Parcel) -> Lane:
    """A lane with these parcels in it."""
    lane = Lane("t", 0)
    for parcel in parcels:
        lane.put(parcel)
    return lane


def send(lane: Lane, identity: Identity = FIRST, limit: int = NO_LIMIT) -> list[bytes | None]:
    """Send a batch; the values in it."""
    batch = lane.prepare(identity, limit, "none", 0)
    lane.in_flight = True
    return values_of(batch)


def values_of(batch: Batch) -> list[bytes | None]:
    """What is in a batch."""
    return [record[1] for record in batch.records() if not isinstance(record, bytes)]


def test_halves_are_sent_one_by_one_ahead_of_the_rest() -> None:
    """T5, C3: a refused batch is halved until the culprit stands alone; what is put meanwhile waits behind."""
    lane = lane_with(many := Noting(*b"a b c d e".split()))
    sent = [send(lane)]
    lane.put(late := Noting(b"z"))
    while lane.in_flight:
        if b"d" in sent[-1]:
            lane.refused(ValueError("too large"), 0.0)
        else:
            lane.succeeded(100 * len(sent))
        if lane.waiting:
            sent.append(send(lane))
    assert [b"".join(v or b"" for v in values) for values in sent] == [
        b"abcde",
        b"ab",
        b"cde",
        b"c",
        b"de",
        b"d",
        b"e",
        b"z",
    ]
    assert many.ends == {0: "at 200", 1: "at 201", 2: "at 400", 3: "refused: too large", 4: "at 700"}
    assert late.ends == {0: "at 800"}


class Insisting(Noting):
    """One that waits until it is taken."""

    insists = True


def test_what_insists_is_sent_again_and_all_behind_it_waits() -> None:
    """P2: a record that is refused, and whose parcel insists, is not overtaken; what was before it in its batch is
    delivered. Once it is taken, all else is, in order, under the same producer id."""
    lane = lane_with(first := Insisting(b"a", b"b", b"c", b"d"))
    send(lane)
    lane.refused(ValueError("too large"), 0.0)
    assert send(lane) == [b"a", b"b"]
    lane.succeeded(10)
    assert send(lane) == [b"c", b"d"]
    lane.refused(ValueError("too large"), 0.0)
    for _ in range(3):
        assert send(lane) == [b"c"]
        lane.refused(error := ValueError("too large"), 0.0)
        assert (lane.trouble, lane.is_ready(0.0), lane.is_ready(1.0)) == (error, False, True)
    assert first.ends == {0: "at 10", 1: "at 11"}
    assert send(lane) == [b"c"]
    lane.succeeded(12)
    assert send(lane) == [b"d"]
    assert lane.trouble is None


def test_a_half_that_is_broken_up_stays_ahead_of_the_other() -> None:
    """T5: a parcel dropped out of a half that is being sent again does not put the half behind the other one."""
    lane = lane_with(gone := Noting(b"a"), Noting(b"b"), Noting(b"c"), Noting(b"d"))
    send(lane)
    lane.refused(ValueError("too large"), 0.0)
    assert send(lane) == [b"a", b"b"]
    lane.drop({gone})
    assert send(lane, SECOND) == [b"b"]
    lane.succeeded(0)
    assert send(lane, SECOND) == [b"c", b"d"]


def test_a_half_is_not_put_back_behind_the_other() -> None:
    """T5, S7: withdrawing from a half that could not be sent leaves it where it is, ahead of the other half."""
    lane = lane_with(first := Noting(b"a"), Noting(b"b"), Noting(b"c"), Noting(b"d"))
    send(lane)
    lane.refused(ValueError("too large"), 0.0)
    assert send(lane) == [b"a", b"b"]
    lane.failed(ConnectionError("no connection"), 0.0)
    assert not lane.withdraw(first)
    assert send(lane) == [b"a", b"b"]


def test_a_refusal_after_a_lost_answer_costs_the_identity() -> None:
    """T5: a record that may be on the topic and is then refused has maybe used its sequence number up. Under the
    same producer id a broker could take the next record for that one, and answer that it has it."""
    lane = lane_with(Noting(b"a"), Noting(b"b"), Noting(b"c"))
    for _ in range(2):  # once whole, once the first half
        send(lane)
        lane.failed(TimeoutError("no answer"), 0.0, in_doubt=True)
        send(lane)
        lane.refused(ValueError("too large"), 0.0)
        assert (lane.identity, lane.spent) == (None, FIRST)
        lane.identity, lane.spent = FIRST, None


def test_a_half_of_what_is_in_doubt_is_in_doubt() -> None:
    """S7: a record that was part of a batch without an answer is never said to be absent after its halving."""
    lane = lane_with(Noting(b"a"), second := Noting(b"b"))
    send(lane)
    lane.failed(TimeoutError("no answer"), 0.0, in_doubt=True)
    send(lane)
    lane.refused(ValueError("too large"), 0.0)
    send(lane, SECOND)
    lane.succeeded(0)
    assert send(lane, SECOND) == [b"b"]
    lane.failed(ConnectionError("no connection"), 0.0)
    assert not lane.withdraw(second)


@pytest.mark.parametrize("in_doubt", [True, False])
def test_what_is_in_doubt_stays_in_doubt_under_another_identity(in_doubt: bool) -> None:
    """S7: a record that went out once without an answer is never said to be absent, whatever happened since."""
    lane = lane_with(parcel := Noting(b"a"))
    send(lane)
    lane.failed(TimeoutError("no answer"), 0.0, in_doubt=in_doubt)
    send(lane)
    lane.out_of_sequence(ValueError("out of order"), 0.0)
    send(lane, SECOND)
    lane.failed(ConnectionError("no connection"), 0.0)
    assert lane.withdraw(parcel) is not in_doubt
    assert lane.waiting == in_doubt


def test_the_rest_of_a_batch_is_another_batch() -> None:
    """T5: an answer to a batch that was broken up meanwhile is no answer to what is sent again of it."""
    lane = lane_with(gone := Noting(b"a"), Noting(b"b"))
    send(lane)
    first = lane.batch
    lane.drop({gone})
    send(lane, SECOND)
    assert lane.batch is not first


def test_a_spent_identity_is_not_taken() -> None:
    """T5: a lane that lost its place asserts that its old producer id does not come back."""
    lane = lane_with(parcel := Noting(b"a"), Noting(b"b"))
    send(lane)
    lane.drop({parcel})
    assert lane.identity is None
    with pytest.raises(AssertionError, match="used again"):
        send(lane, FIRST)
    assert send(lane, SECOND) == [b"b"]


def test_a_batch_nobody_has_keeps_its_sequence_number() -> None:
    """T5: taking back what no broker has seen costs nothing: the next batch takes its place under the same id."""
    lane = lane_with(Noting(b"a"))
    send(lane)
    lane.succeeded(0)
    lane.put(gone := Noting(b"b", deadline=5.0))
    lane.put(Noting(b"c"))
    send(lane)
    lane.failed(ConnectionError("no connection"), 0.0)
    lane.expire(5.0, TimeoutError("late"))
    assert gone.ends == {0: "given up: late"}
    assert lane.identity == FIRST
    assert send(lane) == [b"c"]
    assert lane.batch is not None
    assert lane.batch.base_sequence == 1


def test_sequence_numbers_begin_again_after_the_last() -> None:
    """T5: after 2^31 - 1 comes 0, as brokers count."""
    lane = lane_with(Noting(b"a"))
    send(lane)
    lane.succeeded(0)
    lane._sequence = 0x7FFFFFFE
    expected = [0x7FFFFFFE, 1]
    for base in expected:
        lane.put(Noting(b"b", b"c", b"d"))
        send(lane)
        assert lane.batch is not None
        assert lane.batch.base_sequence == base
        lane.succeeded(1)


def test_batches_end_at_the_limit_and_one_record_may_exceed_it() -> None:
    """S5: a batch holds what fits, in order, across parcels; a record larger than a batch goes alone."""
    lane = lane_with(Noting(b"a" * 40, b"b" * 40, b"c" * 300), Noting(b"d" * 40))
    sizes = []
    while lane.waiting:
        sizes.append([len(value or b"") for value in send(lane, limit=150)])
        lane.succeeded(len(sizes))
    assert sizes == [[40, 40], [300], [40]]


def test_thousands_of_deadlines_are_looked_at_together() -> None:
    """S7: 5,000 records that expire one by one within half a second cost some walks, not 5,000."""
    parcels = [Noting(b"a", deadline=10 + n / 10_000) for n in range(5_000)]
    lane = lane_with(*parcels)
    walks = 0
    while lane.deadline is not None:
        now = lane.deadline
        lane.expire(now, TimeoutError("late"))
        walks += 1
    assert now <= 10.7
    assert walks <= 7
    assert all(parcel.ends for parcel in parcels)


def test_a_deadline_behind_a_record_without_one_is_kept() -> None:
    """S7: a caller's record is given up in time although it waits behind one that may wait for ever."""
    lane = lane_with(Noting(b"row"), call := Noting(b"call", deadline=3.0), Noting(b"row"))
    deadlines = [lane.deadline]
    lane.expire(3.0, TimeoutError("late"))
    assert [*deadlines, lane.deadline] == [3.0, None]
    assert call.ends == {0: "given up: late"}
    assert lane.waiting == 2
    assert send(lane) == [b"row", b"row"]


def test_a_parcel_that_fails_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """T5: an exception in one parcel's callback is logged, and the next one still hears of its end."""

    class Broken(Noting):
        """Cannot take note of anything."""

        def acked(self, first: int, count: int, offset: int) -> None:  # noqa: ARG002
            """Fail."""
            raise RuntimeError("a bug when acknowledged")

        def given_up(self, first: int, count: int, error: BaseException) -> None:  # noqa: ARG002
            """Fail."""
            raise RuntimeError("a bug when given up")

    lane = lane_with(Broken(b"a"), acked := Noting(b"b"))
    send(lane)
    lane.succeeded(7)
    lane.put(Broken(b"c"))
    lane.put(given_up := Noting(b"d"))
    lane.empty(ValueError("closed"))
    assert (acked.ends, given_up.ends) == ({0: "at 8"}, {0: "given up: closed"})
    assert "a bug when acknowledged" in caplog.text
    assert "a bug when given up" in caplog.text
    assert lane.waiting == 0


def test_what_cannot_be_encoded_is_isolated() -> None:
    """C3: a record that does not fit Kafka's format is refused alone; it does not vanish, and nothing stops."""
    bad = Noting(b"a", b"b", b"c")
    bad.records = [bad.records[0], (None, "text", []), bad.records[2]]  # type: ignore[list-item]
    lane = lane_with(bad)
    for offset in range(10):
        if lane.waiting:
            try:
                send(lane)
            except Unencodable as error:
                lane.refused(error, 0.0)
            else:
                lane.succeeded(offset)
    assert bad.ends.keys() == {0, 1, 2}
    assert bad.ends[1].startswith("refused: a record cannot be encoded")
    assert bad.ends[0].startswith("at ")
    assert bad.ends[2].startswith("at ")
    assert lane.waiting == 0


def test_a_parcel_that_knows_its_size_is_taken_whole_or_looked_at() -> None:
    """S5: a batch takes a parcel on its word where that fits its limit, and else as many of its records as fit."""
    lane = lane_with(first := Noting(b"a", b"b"), second := Noting(b"c", b"d"))
    first.size, second.size = 60, 50
    assert send(lane, limit=109) == [b"a", b"b", b"c"]
    lane.succeeded(0)
    assert send(lane, limit=109) == [b"d"]
    whole = lane_with(first := Noting(b"a", b"b"), second := Noting(b"c", b"d"))
    first.size, second.size = 60, 49
    assert send(whole, limit=109) == [b"a", b"b", b"c", b"d"]
