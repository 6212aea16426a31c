"""The time that a page may take: its parts, each sent in its place, so that live events find gaps. Pure but for the
wait.

Owns: how many letters a page and a part of it have, when a part is due. Must not know: what is done with them.

Reading letters, recording what became of them and asking for the next costs nearly as much for a few as for many:
that is done once a page. What is sent at once the worker delivers at once, before the live events behind it: that is a
part.
"""

from __future__ import annotations

import asyncio

from pipeline.clock import Clock

__all__ = ["PAGE_S", "Pace", "page_size", "part_size"]

_MAX_PAGE = 1_000
PAGE_S = 0.25
"""With a rate, a page is what may go in this time."""
_PART_S = 0.05


def page_size(rate: float) -> int:
    """How many letters are dealt with at once: what may be repeated after a crash. `rate`: letters a second, 0 for as
    fast as it goes."""
    return _in(PAGE_S, rate)


def part_size(rate: float) -> int:
    """How many of them are sent at once."""
    return _in(_PART_S, rate)


def _in(seconds: float, rate: float) -> int:
    return _MAX_PAGE if rate <= 0 else max(1, min(_MAX_PAGE, int(rate * seconds)))


class Pace:
    """A span of time that begins at a monotonic time and takes `over_s` seconds; with 0 nothing waits."""

    def __init__(self, clock: Clock, begin: float, over_s: float) -> None:
        self._clock = clock
        self._begin = begin
        self._over_s = over_s

    def wait_s(self, share: float) -> float:
        """How long it is until this share of the span is over; 0 for whoever is late, who so catches up."""
        return max(0.0, self._begin + share * self._over_s - self._clock.monotonic())

    async def reach(self, share: float) -> None:
        """Wait for that; at least for one turn of the event loop."""
        await asyncio.sleep(self.wait_s(share))
