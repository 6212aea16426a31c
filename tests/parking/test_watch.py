"""Noticing sick targets: what is overdue, what is certain, and what is nobody's fault (B2)."""

from __future__ import annotations

from aiokafka import errors as kafka_errors

from pipeline.kafka.encoding import Identity
from pipeline.kafka.lane import Lane, Parcel
from pipeline.parking.watch import Finding, Watch

ME = Identity(1, 0)
DENIED, GONE = kafka_errors.TopicAuthorizationFailedError("a"), kafka_errors.UnknownTopicOrPartitionError("a")


class Quiet(Parcel):
    """Says nothing."""

    def acked(self, first: int, count: int, offset: int) -> None:
        """Nothing."""

    def refused(self, index: int, error: BaseException) -> None:
        """Nothing."""

    def given_up(self, first: int, count: int, error: BaseException) -> None:
        """Nothing."""


def lane(topic: str = "a", records: int = 3) -> Lane:
    """A lane with records that are being sent."""
    made = Lane(topic, 0)
    made.put(Quiet([(None, b"", [])] * records))
    send(made)
    return made


def send(lane: Lane) -> None:
    """An attempt."""
    lane.prepare(ME, 1 << 20, "none", 0)
    lane.in_flight = True


def looked(watch: Watch, lanes: list[Lane], until: float, since: float = 0.0) -> list[Finding]:
    """What is found at the last of many looks, none of which may find anything before."""
    now = since
    while now < until:
        assert watch.look(lanes, now) == []
        now += 0.1
    return watch.look(lanes, until)


def test_an_attempt_is_overdue_after_the_soft_timeout() -> None:
    """B2: TARGET_SOFT_TIMEOUT_S after it began; all that waits in the lane counts. What goes on is not overdue."""
    stuck, fine = lane(), lane("b")
    watch = Watch({"a", "b"}, 2.0)
    looked(watch, [stuck, fine], 1.5)
    fine.succeeded(0)
    fine.put(Quiet([(None, b"", [])]))
    send(fine)
    (finding,) = looked(watch, [stuck, fine], 2.02, 1.55)
    assert (finding.target, finding.certain, finding.records) == ("a", False, 3)
    assert "overdue by 2 s: no answer" in finding.reason


def test_only_targets_are_watched() -> None:
    """B1: a dead-letter topic that is slow is no target."""
    watch = Watch({"a"}, 2.0)
    assert looked(watch, [lane("a.dlq")], 5.0) == []


def test_standing_still_oneself_is_nobodys_fault() -> None:
    """B2: a process that was stopped for a minute finds its attempts old, and must not blame the target."""
    watch, stuck = Watch({"a"}, 2.0), lane()
    looked(watch, [stuck], 1.0)
    assert watch.look([stuck], 61.0) == []
    (finding,) = looked(watch, [stuck], 63.02, 61.15)
    assert not finding.certain


def test_what_a_broker_says_is_certain() -> None:
    """B2: an authorisation error is believed at once, a missing topic the second time: one that was just created is
    not known to every broker. While the next attempt is under way, its answer is waited for."""
    watch = Watch({"a"}, 2.0)
    denied = lane()
    denied.failed(DENIED, 0.0)
    (finding,) = watch.look([denied], 0.1)
    assert finding.certain
    assert finding.reason.startswith("auth_error: ")
    send(denied)
    assert watch.look([denied], 0.2) == []
    gone = lane()
    gone.failed(GONE, 0.0)
    assert watch.look([gone], 0.3) == []
    send(gone)
    gone.failed(GONE, 0.3)
    (finding,) = watch.look([gone], 0.4)
    assert finding.certain


def test_other_errors_only_count_once_they_are_overdue() -> None:
    """B2: a leader that moves costs a few attempts, and is no failure."""
    watch, moving = Watch({"a"}, 2.0), lane()
    for attempt in range(20):
        moving.failed(kafka_errors.NotLeaderForPartitionError("a"), 0.0)
        assert watch.look([moving], attempt / 10) == []
        send(moving)
    moving.succeeded(0)
    moving.put(Quiet([(None, b"", [])]))
    send(moving)
    looked(watch, [moving], 3.9, 2.0)


def test_what_comes_after_an_eviction_is_judged_by_itself() -> None:
    """B2: the error of events that were taken out of a lane says nothing about those that come later."""
    watch, evicted = Watch({"a"}, 2.0), lane()
    evicted.failed(DENIED, 0.0)
    assert watch.look([evicted], 0.1)
    evicted.evict()
    evicted.put(Quiet([(None, b"", [])]))
    assert watch.look([evicted], 0.2) == []


def test_one_finding_for_each_target() -> None:
    """B2: the events of all its lanes count; what is certain about one of them is certain."""
    watch = Watch({"a"}, 2.0)
    lanes = [lane(), lane(records=4)]
    looked(watch, lanes, 1.9)
    lanes[1].failed(DENIED, 0.0)
    found = watch.look(lanes, 2.0)
    assert [(finding.certain, finding.records) for finding in found] == [(True, 7)]


def test_retries_are_counted() -> None:
    """Q2: how often a record was sent again is known when it is refused (`dlq-retry-count`)."""
    parcel = Quiet([(None, b"", [])] * 2)
    some = Lane("a", 0)
    some.put(parcel)
    for _ in range(3):
        send(some)
        some.failed(kafka_errors.NotLeaderForPartitionError("a"), 0.0)
    assert parcel.retries == 3
