"""What a broker's answer to a batch means for its lane, by Kafka's error codes."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from pipeline.errors import Verdict, classify, verdict_of
from pipeline.kafka.encoding import Identity
from pipeline.kafka.lane import Lane, Parcel
from pipeline.kafka.request import carry

CORRUPT_MESSAGE, NOT_LEADER, INVALID_TIMESTAMP = 2, 6, 32
BEFORE_APPENDING = {3, 17, 19, 29, 31, CORRUPT_MESSAGE, INVALID_TIMESTAMP}
MANY = 64


@dataclass(eq=False)
class Ends(Parcel):
    """Notes which records were delivered, and which were refused with what."""

    count: int
    delivered: list[int] = field(default_factory=list)
    refusals: dict[int, BaseException] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__([(b"key", b"%d" % number, []) for number in range(self.count)])

    def acked(self, first: int, count: int, offset: int) -> None:  # noqa: ARG002 -- order is all that counts here
        """Delivered."""
        self.delivered += range(first, first + count)

    def refused(self, index: int, error: BaseException) -> None:
        """Never to be taken."""
        self.refusals[index] = error


def sending(parcel: Parcel) -> Lane:
    """A lane with the parcel's records on their way."""
    lane = Lane("t", 0)
    lane.put(parcel)
    send(lane)
    return lane


def send(lane: Lane, now_ms: int = 0) -> list[bytes]:
    """Send the next batch, or the last one again; the values in it."""
    batch = lane.prepare(Identity(1, 0), 1 << 20, "none", now_ms)
    lane.in_flight = True
    return [record[1] or b"" for record in batch.records() if not isinstance(record, bytes)]


@pytest.mark.parametrize("code", [*sorted(BEFORE_APPENDING), 5, NOT_LEADER, 7, 20, 56])
def test_what_was_refused_before_appending_is_not_in_doubt(code: int) -> None:
    """S7: an event whose batch the broker refused before it appended it, an INVALID_TIMESTAMP too, can be taken back
    as not sent; after an answer that may come when it was appended, it cannot."""
    parcel = Ends(2)
    lane = sending(parcel)
    carry(lane, code, 0.0)
    assert lane.withdraw(parcel) is (code in BEFORE_APPENDING)


@pytest.mark.parametrize("code", [CORRUPT_MESSAGE, INVALID_TIMESTAMP])
def test_what_is_not_the_records_fault_is_encoded_anew(code: int) -> None:
    """C3: a batch that arrived damaged, or with a wrong time, is sent again with all its records, and encoded anew."""
    lane = sending(Ends(3))
    batch = lane.batch
    assert batch is not None
    before = batch.data
    assert carry(lane, code, 0.0) is not None
    assert send(lane, 60_000) == [b"0", b"1", b"2"]
    assert (lane.batch is batch, batch.data != before) == (True, True)


def test_damage_on_the_way_is_nobodys_poison() -> None:
    """C3: a batch is found corrupt twice and arrives whole at the third attempt: everything is delivered, in order,
    and until then its lane is in a trouble that is systemic."""
    parcel = Ends(3)
    lane = sending(parcel)
    for _ in range(2):
        carry(lane, CORRUPT_MESSAGE, 0.0)
        assert lane.trouble is not None
        assert verdict_of(classify(lane.trouble)) is Verdict.SYSTEMIC
        send(lane)
    lane.succeeded(0)
    assert (parcel.delivered, parcel.refusals, lane.trouble) == ([0, 1, 2], {}, None)


def test_a_record_that_is_always_found_corrupt_is_poison() -> None:
    """C3: a record that makes each batch corrupt is refused by itself, as a serialization error, after a number of
    attempts that grows with the logarithm of the batch; its neighbours are delivered, in order."""
    parcel = Ends(MANY)
    culprit = 37
    lane = Lane("t", 0)
    lane.put(parcel)
    attempts = 0
    while lane.waiting:
        attempts += 1
        if b"%d" % culprit in send(lane):
            carry(lane, CORRUPT_MESSAGE, 0.0)
        else:
            lane.succeeded(0)
    assert parcel.delivered == [number for number in range(MANY) if number != culprit]
    assert list(parcel.refusals) == [culprit]
    assert verdict_of(classify(parcel.refusals[culprit])) is Verdict.POISON
    assert attempts == 3 * 7 + 6
