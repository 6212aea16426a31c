"""One breaker per target of the catalog, what an operator decided about it, and what became of both. Sans I/O.

Owns: which targets are shut, their history, pause, resume and reset. Must not know: who finds out that a target
is sick, what is done with its events. Bounded: a breaker for each target of the catalog, and no other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pipeline.breaker import Breaker, BreakerPolicy, State
from pipeline.clock import Clock
from pipeline.errors import UnknownTarget

__all__ = ["Breakers", "Change", "TargetState"]

_HISTORY = 20


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a breaker: when (seconds since 1970), which state it entered, why, and who decided, if anybody."""

    at: float
    state: State
    reason: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class TargetState:
    """How a target stands: its breaker, and what this worker has parked for it.

    `since`: when it was shut or opened up last, in seconds since 1970. `reason`: why it is shut, else empty.
    `failure_ratio`: of the events of the last 60 s. `next_probe_in`: seconds, None where none is due by itself.
    `paused_by`: the operator who paused it, else empty. `history`: the last changes, oldest first.
    `parked_oldest_at`: when the oldest event parked was parked, in seconds since 1970.
    """

    target: str
    state: State
    since: float
    reason: str
    failure_ratio: float
    next_probe_in: float | None
    paused_by: str
    history: tuple[Change, ...]
    parked_records: int = 0
    parked_bytes: int = 0
    parked_oldest_at: float | None = None


class _Guarded:
    """A target's breaker and its story."""

    def __init__(self, policy: BreakerPolicy, now: float) -> None:
        self.breaker = Breaker(policy)
        self.paused_by = ""
        self.since = now
        self.history: deque[Change] = deque(maxlen=_HISTORY)

    @property
    def state(self) -> State:
        """As it acts: paused is open."""
        return State.OPEN if self.paused_by else self.breaker.state

    @property
    def reason(self) -> str:
        """Why it is not closed."""
        return f"paused by {self.paused_by}" if self.paused_by else self.breaker.reason


class Breakers:
    """The breakers of all targets. Every method that names a target raises `UnknownTarget` for any other.

    `on_change` is told the target and its former state after each change of state.
    """

    def __init__(
        self,
        targets: Iterable[str],
        policy: BreakerPolicy,
        clock: Clock,
        on_change: Callable[[str, State], None] = lambda _target, _former: None,
    ) -> None:
        self.clock = clock
        self.on_change = on_change
        self.shut: frozenset[str] = frozenset()
        """The targets that nothing may go to now but a probe."""
        self._guarded = {target: _Guarded(policy, clock.time()) for target in targets}

    def __iter__(self) -> Iterator[str]:
        """The targets, as the catalog has them."""
        return iter(self._guarded)

    def __contains__(self, target: object) -> bool:
        """Whether it is a target of the catalog."""
        return target in self._guarded

    def state(self, target: str) -> State:
        """The state of a target's breaker."""
        return self._of(target).state

    def reason(self, target: str) -> str:
        """Why it is not closed; empty where it is."""
        return self._of(target).reason

    def succeeded(self, target: str, count: int) -> None:
        """`count` events were acknowledged by the target."""
        self._of(target).breaker.succeeded(count, self.clock.monotonic())

    def failed(self, target: str, count: int, reason: str, *, overdue_s: float) -> None:
        """`count` events are overdue through the target's fault, since `overdue_s` seconds."""
        self._change(target, lambda breaker, now: breaker.failed(count, now, reason, begun=now - overdue_s))

    def trip(self, target: str, reason: str) -> None:
        """The target is known to be unusable: shut it at once."""
        self._change(target, lambda breaker, now: breaker.trip(now, reason))

    def due_probes(self) -> list[str]:
        """The targets to probe now; each is half-open until its probe ends."""
        return [target for target, guarded in self._guarded.items() if self._may_probe(target, guarded)]

    def probe_succeeded(self, target: str) -> None:
        """The probe under way went through."""
        self._change(target, lambda breaker, now: breaker.probe_succeeded(now))

    def probe_failed(self, target: str, reason: str) -> None:
        """The probe under way failed."""
        self._change(target, lambda breaker, now: breaker.probe_failed(now, reason))

    def probe_cancelled(self, target: str) -> None:
        """The probe under way ended without saying anything about the target."""
        self._change(target, lambda breaker, now: breaker.probe_cancelled(now))

    def pause(self, target: str, by: str, at: float | None = None) -> None:
        """Shut a target until `resume`: everything for it parks. In memory only.

        `at`: when it was ordered, in seconds since 1970, which may be long before this worker started; else now.
        """
        self._change(target, lambda _breaker, _now: setattr(self._of(target), "paused_by", by), by, at)

    def resume(self, target: str, by: str = "") -> None:
        """End a pause. The breaker then stands as it would without it."""
        self._change(target, lambda _breaker, _now: setattr(self._of(target), "paused_by", ""), by)

    def reset(self, target: str, by: str = "") -> None:
        """Close a breaker now, without waiting for a probe. A pause is not ended."""
        self._change(target, lambda breaker, now: breaker.reset(now), by)

    def standing(self, target: str) -> TargetState:
        """A snapshot of one target, without what is parked."""
        guarded = self._of(target)
        now = self.clock.monotonic()
        due = None if guarded.paused_by else guarded.breaker.next_probe()
        return TargetState(
            target=target,
            state=guarded.state,
            since=guarded.since,
            reason=guarded.reason,
            failure_ratio=guarded.breaker.failure_ratio(now),
            next_probe_in=None if due is None else max(0.0, due - now),
            paused_by=guarded.paused_by,
            history=tuple(guarded.history),
        )

    def _may_probe(self, target: str, guarded: _Guarded) -> bool:
        if guarded.paused_by:
            return False
        if guarded.breaker.next_probe() is None:
            return False
        self._change(target, lambda breaker, now: breaker.may_probe(now))
        return guarded.breaker.state is State.HALF_OPEN

    def _change(
        self, target: str, act: Callable[[Breaker, float], object], by: str = "", at: float | None = None
    ) -> None:
        guarded = self._of(target)
        former, paused = guarded.state, guarded.paused_by
        act(guarded.breaker, self.clock.monotonic())
        if guarded.state is former and guarded.paused_by == paused:
            return
        closed = guarded.state is State.CLOSED
        if closed != (former is State.CLOSED) or guarded.paused_by != paused:  # probes are no story
            guarded.since = self.clock.time() if at is None else at
            guarded.history.append(Change(guarded.since, guarded.state, guarded.reason, by))
        self.shut = self.shut - {target} if closed else self.shut | {target}
        self.on_change(target, former)

    def _of(self, target: str) -> _Guarded:
        try:
            return self._guarded[target]
        except KeyError:
            raise UnknownTarget(target) from None
