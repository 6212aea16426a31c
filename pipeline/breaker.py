"""The circuit breaker (B): one state machine for the service's staging broker and for each target. Sans I/O.

Owns: counting, opening, probing, closing. Must not know: what is behind it, who probes. The clock is handed in.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Breaker", "BreakerPolicy", "State"]

_WINDOW_S = 60.0


class State(StrEnum):
    """Closed: let through. Open: keep away. Half-open: one probe is under way (B1)."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When to open: at `failure_ratio` over at least `min_requests` within 60 s; for `open_s` before a probe (B2)."""

    failure_ratio: float = 0.5
    min_requests: int = 10
    open_s: float = 30.0


class Breaker:
    """Opens when too much fails, and closes only when a probe succeeds; traffic alone never closes it.

    Report what happened with `succeeded` and `failed`; caller faults, poison and cancellations are not
    reported at all. While it is open, ask `may_probe` and report the probe's end.
    """

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._seconds: deque[list[float]] = deque()
        self._ok = 0
        self._failed = 0
        self._last_ok = float("-inf")
        self._failed_since = 0
        """Failures since anything last went through."""
        self.state = State.CLOSED
        self.since = 0.0
        """When the state was entered, in seconds of the clock handed in."""
        self.reason = ""
        """Why it opened; empty while closed."""

    @property
    def is_closed(self) -> bool:
        """Whether traffic may go through."""
        return self.state is State.CLOSED

    def failure_ratio(self, now: float) -> float:
        """Failures among all events of the last 60 s, 0 where there were none."""
        self._forget_before(now - _WINDOW_S)
        total = self._ok + self._failed
        return self._failed / total if total else 0.0

    def succeeded(self, count: int, now: float) -> None:
        """`count` events went through. Counts only while closed: a late answer does not close an open breaker."""
        if count and self.state is State.CLOSED:
            self._count(count, 0, now)
            self._last_ok = now
            self._failed_since = 0

    def failed(self, count: int, now: float, reason: str, *, begun: float | None = None) -> None:
        """`count` events failed, or are overdue, through the fault of what is behind the breaker.

        `begun`: when the attempt began that failed. Where nothing went through since, what went through before
        says nothing any more: a busy minute would keep the breaker closed for half of another one.
        """
        if self.state is not State.CLOSED:
            return
        self._count(0, count, now)
        self._failed_since += count
        dead = begun is not None and self._last_ok < begun and self._failed_since >= self._policy.min_requests
        enough = self._ok + self._failed >= self._policy.min_requests
        if dead or (enough and self._failed >= self._policy.failure_ratio * (self._ok + self._failed)):
            self.trip(now, reason)

    def trip(self, now: float, reason: str) -> None:
        """Open at once: what is behind is known to be unusable."""
        if self.state is not State.OPEN:
            self._enter(State.OPEN, now)
        self.reason = reason

    def next_probe(self) -> float | None:
        """When a probe may be made; None while closed or while one is under way."""
        return self.since + self._policy.open_s if self.state is State.OPEN else None

    def may_probe(self, now: float) -> bool:
        """Whether the caller shall probe now. True once; the breaker is then half-open until the probe ends."""
        due = self.next_probe()
        if due is None or now < due:
            return False
        self._enter(State.HALF_OPEN, now)
        return True

    def probe_succeeded(self, now: float) -> None:
        """The probe went through: close, and count afresh."""
        if self.state is State.HALF_OPEN:
            self.reset(now)

    def probe_failed(self, now: float, reason: str) -> None:
        """The probe failed: stay away for another while."""
        if self.state is State.HALF_OPEN:
            self._enter(State.OPEN, now)
            self.reason = reason

    def probe_cancelled(self, now: float) -> None:
        """The probe was cancelled, which says nothing: open as before, and due again at once."""
        if self.state is State.HALF_OPEN:
            self._enter(State.OPEN, now)
            self.since = now - self._policy.open_s

    def reset(self, now: float) -> None:
        """Somebody knows that what is behind is well: close, whatever the state, and count afresh."""
        self._enter(State.CLOSED, now)
        self.reason = ""
        self._seconds.clear()
        self._ok = self._failed = self._failed_since = 0

    def _enter(self, state: State, now: float) -> None:
        self.state = state
        self.since = now

    def _count(self, ok: int, failed: int, now: float) -> None:
        second = float(int(now))
        if (
            self._seconds and self._seconds[-1][0] >= second
        ):  # a clock that went back counts into the last one
            self._seconds[-1][1] += ok
            self._seconds[-1][2] += failed
        else:
            self._seconds.append([second, ok, failed])
        self._ok += ok
        self._failed += failed
        self._forget_before(now - _WINDOW_S)

    def _forget_before(self, horizon: float) -> None:
        while self._seconds and self._seconds[0][0] < horizon - 1:
            _, ok, failed = self._seconds.popleft()
            self._ok -= int(ok)
            self._failed -= int(failed)
