"""The circuit breaker, B1 and B2, with the clock in the test's hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.breaker import Breaker, BreakerPolicy, State

POLICY = BreakerPolicy(failure_ratio=0.5, min_requests=10, open_s=30)


def opened(now: float = 0.0) -> Breaker:
    """A breaker that has just opened."""
    breaker = Breaker(POLICY)
    breaker.failed(10, now, "down")
    assert breaker.state is State.OPEN
    return breaker


def is_open(breaker: Breaker) -> bool:
    """Whether it is open."""
    return breaker.state is State.OPEN


def test_opens_at_the_ratio_over_the_minimum() -> None:
    """B2: opens at CB_FAILURE_RATIO over at least CB_MIN_REQUESTS, not before either is reached."""
    breaker = Breaker(POLICY)
    breaker.failed(9, 0, "down")
    assert not is_open(breaker)  # all failed, but too few
    breaker = Breaker(POLICY)
    breaker.succeeded(11, 0)
    breaker.failed(10, 1, "down")
    assert not is_open(breaker)  # 10 of 21
    breaker.failed(1, 1, "down")
    assert is_open(breaker)  # 11 of 22
    assert breaker.reason == "down"


def test_counts_over_sixty_seconds() -> None:
    """B2: what happened more than 60 s ago does not count."""
    breaker = Breaker(POLICY)
    breaker.failed(9, 0, "down")
    breaker.failed(1, 62, "down")
    assert breaker.state is State.CLOSED
    assert breaker.failure_ratio(62) == 1.0
    assert breaker.failure_ratio(200) == 0.0


def test_a_busy_minute_does_not_keep_it_closed() -> None:
    """B2: where nothing went through since a failed attempt began, CB_MIN_REQUESTS of them are enough, whatever
    went through in the minute before; where something did, the ratio over 60 s decides."""
    breaker = Breaker(POLICY)
    breaker.succeeded(60_000, 0)
    breaker.failed(9, 3, "down", begun=1)
    assert not is_open(breaker)  # too few
    breaker.succeeded(1, 3)
    breaker.failed(9, 4, "down", begun=3.5)
    assert not is_open(breaker)  # something went through in between
    breaker.failed(1, 4, "down", begun=2.5)
    assert not is_open(breaker)  # and after this attempt began
    breaker.failed(1, 4, "down", begun=3.5)
    assert is_open(breaker)


def test_probes_after_the_open_time_once() -> None:
    """B2: open for CB_TIMEOUT_S, then one probe; a second caller is told to wait for its end."""
    breaker = opened()
    assert not breaker.may_probe(29.9)
    assert breaker.next_probe() == 30.0
    assert breaker.may_probe(30.0)
    assert breaker.state is State.HALF_OPEN
    assert not breaker.may_probe(31.0)


def test_stays_open_while_the_probe_fails_and_closes_when_it_succeeds() -> None:
    """B2: stays open while the probe fails; B1: a probe that succeeds closes it and counting starts afresh."""
    breaker = opened()
    for attempt in range(1, 6):
        now = attempt * 30.0
        assert breaker.may_probe(now)
        breaker.probe_failed(now, "still down")
        assert breaker.state is State.OPEN
    assert breaker.may_probe(180.0)
    breaker.probe_succeeded(180.0)
    assert breaker.is_closed
    breaker.failed(9, 181, "down")
    assert breaker.is_closed


def test_a_late_answer_does_not_close_it() -> None:
    """B1: only a probe closes an open breaker; answers to earlier requests that come late do not."""
    breaker = opened()
    breaker.succeeded(1_000, 1)
    assert breaker.state is State.OPEN
    breaker.probe_succeeded(1)
    assert breaker.state is State.OPEN  # no probe was under way


def test_a_cancelled_probe_says_nothing() -> None:
    """B2: cancellations never count; the next probe is due at once."""
    breaker = opened()
    assert breaker.may_probe(30)
    breaker.probe_cancelled(31)
    assert breaker.state is State.OPEN
    assert breaker.may_probe(31)


def test_trips_at_once() -> None:
    """B2: authorisation errors and missing topics open a target's breaker without counting."""
    breaker = Breaker(POLICY)
    breaker.trip(5, "no such topic")
    assert breaker.state is State.OPEN
    assert breaker.since == 5
    breaker.trip(20, "still none")
    assert breaker.since == 5  # tripping again does not put off the probe


@given(st.lists(st.tuples(st.floats(-30, 90), st.integers(0, 3), st.integers(0, 3)), max_size=60))
def test_never_miscounts_whatever_the_clock_does(steps: list[tuple[float, int, int]]) -> None:
    """B2: counts stay exact sums of the window, also when the clock jumps back and forth."""
    breaker = Breaker(BreakerPolicy(failure_ratio=1.0, min_requests=10**9))
    now = 1_000.0
    for jump, ok, failed in steps:
        now += jump
        breaker.succeeded(ok, now)
        breaker.failed(failed, now, "down")
        ratio = breaker.failure_ratio(now)
        assert 0.0 <= ratio <= 1.0
    assert breaker.failure_ratio(now + 1_000) == 0.0
