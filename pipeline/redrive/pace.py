"""The time that a page may take: its work in steps, each in its place, so that live events find gaps. Pure but for
the wait.

Owns: how large a step is, when one is due. Must not know: what is done in it, rates.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

from pipeline.clock import Clock

__all__ = ["Pace", "steps"]

_STEPS = 5
_WORTH_A_STEP = 10
"""So many letters: a step costs as much as some six of them beside its own."""

T = TypeVar("T")


def steps(page: Sequence[T]) -> Iterator[tuple[float, Sequence[T]]]:
    """A page in a few steps of equal size, in order, each with the share of the page behind it, up to 1."""
    size = math.ceil(len(page) / min(_STEPS, max(1, len(page) // _WORTH_A_STEP)))
    for begin in range(0, len(page), size or 1):
        end = min(begin + size, len(page))
        yield end / len(page), page[begin:end]


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
