"""One broker as a producer sees it: the lanes that could go into the next request, and when that may go out. Pure.

Owns: linger, the number of requests under way, the size of one. Must not know: connections, tasks.
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.kafka.batch import Batch
from pipeline.kafka.lane import Lane

__all__ = ["Node"]

_MAX_REQUEST_BYTES = 8_388_608
_MAX_IN_FLIGHT = 5


class Node:
    """A broker, by its node id."""

    def __init__(self, node_id: int) -> None:
        self.node_id = node_id
        self.in_flight = 0
        """Requests under way."""
        self._ready: dict[Lane, None] = {}
        self._ready_since = 0.0

    def add(self, lane: Lane, now: float) -> None:
        """Let a lane take part in the next request. Adding it again does nothing."""
        if not self._ready:
            self._ready_since = now
        self._ready[lane] = None

    def lingers_until(self, linger_s: float) -> float | None:
        """Until when to wait for companions; None: nothing waits, or no request is under way to wait for."""
        return self._ready_since + linger_s if self._ready and self.in_flight else None

    def may_send(self) -> bool:
        """Whether something waits and one more request may be under way. If not, the end of one will change it."""
        return bool(self._ready) and self.in_flight < _MAX_IN_FLIGHT

    def take(
        self, prepare: Callable[[Lane], Batch | None], now: float
    ) -> dict[tuple[str, int], tuple[Lane, Batch]]:
        """The batches of the next request, by topic and partition: of as many lanes as it holds, now in flight."""
        taken: dict[tuple[str, int], tuple[Lane, Batch]] = {}
        room = _MAX_REQUEST_BYTES
        ready, seen = list(self._ready), 0
        for lane in ready:
            if room <= 0:
                break
            seen += 1
            batch = prepare(lane) if lane.is_ready(now) else None
            if batch is not None:
                room -= len(batch.data)
                taken[lane.topic, lane.partition] = lane, batch
        # Not one by one from the front: the first of a dict is looked for behind all that were deleted.
        self._ready = dict.fromkeys(ready[seen:])
        for lane, _ in taken.values():  # only now: where one cannot be prepared, none of them is sent
            lane.in_flight = True
        return taken
