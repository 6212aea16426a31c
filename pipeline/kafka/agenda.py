"""When to look at what again: a heap of times, one entry that counts for each item. Pure; the clock is handed in.

Owns: order in time. Must not know: what is looked at, or why.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["Agenda"]

T = TypeVar("T", bound=Hashable)


class Agenda(Generic[T]):
    """For each item the next time to look at it. Adding and taking cost O(log n)."""

    def __init__(self) -> None:
        self._times: dict[T, float] = {}
        self._heap: list[tuple[float, int, T]] = []
        self._tie = itertools.count()

    def add(self, item: T, at: float) -> None:
        """Look at the item at `at`, or earlier where that is noted already."""
        if at < self._times.get(item, float("inf")):
            self._times[item] = at
            heapq.heappush(self._heap, (at, next(self._tie), item))

    def due(self, now: float) -> list[T]:
        """The items to look at now, each once; they are no longer on the agenda."""
        items = []
        while (first := self.next()) is not None and first <= now:
            item = heapq.heappop(self._heap)[2]
            del self._times[item]
            items.append(item)
        return items

    def next(self) -> float | None:
        """When the next item is due; None: never."""
        while self._heap:
            at, _, item = self._heap[0]
            if self._times.get(item) == at:
                return at
            heapq.heappop(self._heap)  # an earlier time was noted for it later
        return None
