"""One timer for many calls that all have the same time to wait.

Owns: who is overdue. Must not know: what is done about it. Calls come due in the order they were added, so
a queue and a single timer do what a timer for each call would do at many times the cost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from pipeline.client.call import Call
from pipeline.clock import Clock

__all__ = ["Deadlines"]


class Deadlines:
    """Tells `on_due` of each call that nobody has answered `after_s` seconds after it was added."""

    def __init__(self, after_s: float, clock: Clock, on_due: Callable[[Call], None]) -> None:
        self._after_s = after_s
        self._clock = clock
        self._on_due = on_due
        self._loop = asyncio.get_running_loop()
        self._calls: deque[tuple[float, Call]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._looking = False
        """Whether `_look` comes in the next turn of the loop."""

    def add(self, call: Call, now: float) -> None:
        """Watch a call from now on."""
        self._calls.append((now + self._after_s, call))
        if not self._looking:
            self._looking = True
            self._loop.call_soon(self._look)

    def stop(self) -> None:
        """Watch nothing any more."""
        self._calls.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """Forget those that were answered: once for all calls of a turn, and while their records are under way."""
        self._looking = False
        calls = self._calls
        while calls and calls[0][1].outcome.done():
            calls.popleft()
        if self._timer is None:
            self._set_timer()

    def _set_timer(self) -> None:
        self._timer = None
        if self._calls:
            delay = max(0.0, self._calls[0][0] - self._clock.monotonic())
            self._timer = self._loop.call_later(delay, self._fire)

    def _fire(self) -> None:
        now = self._clock.monotonic()
        due: list[Call] = []
        while self._calls and (self._calls[0][0] <= now or self._calls[0][1].outcome.done()):
            due.append(self._calls.popleft()[1])
        for call in due:
            if not call.outcome.done():  # one overdue call may decide others too
                self._on_due(call)
        self._set_timer()
