"""Acknowledged calls, counted together: all that end in one turn of the event loop cost little more than one.

Owns: that breaker, room and metrics hear of them before any of their callers goes on. Must not know: what a call is,
how one is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Acks"]


class Acks:
    """Tells `counted` when the calls began that were acknowledged in this turn. Bound to the running event loop."""

    def __init__(self, counted: Callable[[list[float]], None]) -> None:
        self._counted = counted
        self._loop = asyncio.get_running_loop()
        self._begun: list[float] = []

    def add(self, begun: float) -> None:
        """A call that began then, on the monotonic clock, was acknowledged.

        To be told before its caller is: what is scheduled here then comes first.
        """
        if not self._begun:
            self._loop.call_soon(self._tell)
        self._begun.append(begun)

    def _tell(self) -> None:
        begun, self._begun = self._begun, []
        self._counted(begun)
