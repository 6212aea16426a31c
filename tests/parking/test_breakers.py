"""The breakers of all targets: pausing, probing, history, with the clock in the test's hand (B1, B2)."""

from __future__ import annotations

import pytest

from pipeline.breaker import BreakerPolicy, State
from pipeline.errors import UnknownTarget
from pipeline.parking.breakers import Breakers
from pipeline.testing import SteppingClock

POLICY = BreakerPolicy(failure_ratio=0.5, min_requests=10, open_s=30)


def breakers(clock: SteppingClock) -> Breakers:
    """Breakers of two targets."""
    return Breakers(["a", "b"], POLICY, clock)


def test_one_sick_target_shuts_no_other() -> None:
    """B1: one breaker per target; the other one's events do not count."""
    some = breakers(SteppingClock())
    some.succeeded("b", 1_000)
    some.failed("a", 10, "overdue", overdue_s=2)
    assert some.shut == {"a"}
    assert (some.state("a"), some.state("b")) == (State.OPEN, State.CLOSED)
    assert some.reason("a") == "overdue"


def test_it_probes_after_its_time_and_closes_when_the_probe_succeeds() -> None:
    """B2: open for CB_TIMEOUT_S, then half-open for one probe; it stays shut while the probe fails or is cancelled."""
    clock = SteppingClock()
    some = breakers(clock)
    some.trip("a", "auth_error")
    assert some.standing("a").next_probe_in == 30
    assert some.due_probes() == []
    clock.step(30)
    assert some.due_probes() == ["a"]
    assert some.due_probes() == []
    assert some.state("a") is State.HALF_OPEN
    some.probe_failed("a", "still down")
    assert some.shut == {"a"}
    assert some.standing("a").reason == "still down"
    clock.step(30)
    assert some.due_probes() == ["a"]
    some.probe_cancelled("a")
    assert some.due_probes() == ["a"]
    some.probe_succeeded("a")
    assert not some.shut


def test_a_pause_is_an_open_breaker_that_does_not_probe() -> None:
    """B1, O3: paused, a target stays shut whatever its breaker says; resumed, it stands as its breaker does."""
    clock = SteppingClock()
    some = breakers(clock)
    some.pause("a", "eva")
    assert some.shut == {"a"}
    assert (some.standing("a").state, some.standing("a").reason) == (State.OPEN, "paused by eva")
    some.trip("a", "down")
    clock.step(100)
    assert some.due_probes() == []
    some.reset("a", "eva")
    assert some.shut == {"a"}
    some.resume("a", "eva")
    assert not some.shut


def test_a_pause_is_as_old_as_its_order() -> None:
    """O1, O3: a pause outlasts the worker: one that reads its order later says since when it has been, not since when
    it knows."""
    clock = SteppingClock()
    some = breakers(clock)
    some.pause("a", "eva", clock.time() - 3_600)
    assert some.standing("a").since == some.standing("a").history[-1].at == clock.time() - 3_600
    some.resume("a", "eva")
    assert some.standing("a").since == clock.time()


def test_resuming_a_target_that_is_sick_leaves_it_open() -> None:
    """B1: a pause hides the breaker and does not mend it."""
    some = breakers(SteppingClock())
    some.trip("a", "down")
    some.pause("a", "eva")
    some.resume("a", "eva")
    assert some.standing("a").reason == "down"
    assert some.shut == {"a"}


def test_it_remembers_its_last_changes() -> None:
    """O1: the pages show when a target was shut and opened, why and by whom; probes that fail are no news."""
    clock = SteppingClock()
    some = breakers(clock)
    told: list[tuple[str, State]] = []
    some.on_change = lambda target, former: told.append((target, former))
    some.trip("a", "down")
    shut_at = clock.time()
    for _ in range(50):
        clock.step(30)
        some.due_probes()
        some.probe_failed("a", "still down")
    assert some.standing("a").since == shut_at
    some.reset("a", "eva")
    story = [(change.state, change.reason, change.by) for change in some.standing("a").history]
    assert story == [(State.OPEN, "down", ""), (State.CLOSED, "", "eva")]
    assert told[0] == ("a", State.CLOSED)
    assert told[-1] == ("a", State.OPEN)
    for number in range(100):
        some.pause("a", str(number))
    assert len(some.standing("a").history) == 20


def test_there_is_a_breaker_for_each_target_and_no_other() -> None:
    """B1: bounded in number: whatever is asked, no breaker is made."""
    some = breakers(SteppingClock())
    for act in (some.reset, some.resume, some.probe_succeeded, some.standing):
        with pytest.raises(UnknownTarget, match="'c' is no target"):
            act("c")
    assert list(some) == ["a", "b"]
