"""A pass up to a bound, as an operator orders one: what was parked by then ends, and no more than that.

Owns: where such a pass ends, what it passes over. Must not know: how a chunk ends, who ordered it, breakers.

A release delivers all that stands below the bound. A move-on ends a choice of it in another way; what is not chosen
stays parked, in its order, and the cursor remembers what has ended ahead of its turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipeline.clock import Clock
from pipeline.kafka.reader import Place
from pipeline.park import Choice
from pipeline.parking.backlog import Backlog, Partition
from pipeline.parking.learn import ReaderLike
from pipeline.parking.sweep import Chunk, Deliver, Sweep
from pipeline.record import RawHeaders

__all__ = ["Bounded"]

_ROOM_S = 2.0


class Bounded(Sweep):
    """A pass for some backlogs, each up to its offset in the parked topic, for what is chosen of them.

    With events that are not chosen the order of keys is as before; nothing goes straight because of this pass but
    where nothing is left behind it.
    """

    def __init__(
        self,
        parked_topic: str,
        partitions: dict[int, Partition],
        bounds: Mapping[Backlog, int],
        choice: Choice,
        *,
        deliver: Deliver,
        abandon: Callable[[list[Chunk]], None],
        clock: Clock,
        share: int,
    ) -> None:
        super().__init__(
            parked_topic,
            partitions,
            bounds,
            deliver=deliver,
            abandon=abandon,
            park=_nothing_waits,
            clock=clock,
            room_s=_ROOM_S,
            share=share,
        )
        self._bounds = bounds
        self._choice = choice
        self.through: set[Backlog] = set()
        """The backlogs of which all that is chosen below the bound has ended."""

    def _wants(self, backlog: Backlog, offset: int, headers: RawHeaders) -> bool:
        chosen = offset < self._bounds[backlog] and (self._choice.is_all or self._choice.has(headers))
        return chosen and super()._wants(backlog, offset, headers)

    def _note(self, backlog: Backlog, chunk: Chunk) -> None:
        if self._choice.is_all:
            super()._note(backlog, chunk)
        else:
            partition = self._partitions[backlog.partition]
            partition.moved(backlog, self._choice, len(chunk.records), chunk.size, chunk.next_offset)

    async def _look_at_end(self, place: Place, reader: ReaderLike) -> None:
        position = await reader.position(place)
        for backlog in list(self._wanted.get(place.partition, {}).values()):
            bound = self._bounds[backlog]
            if position < bound or self._out[backlog]:
                continue
            self._forget(backlog)
            self.through.add(backlog)
            partition = self._partitions[place.partition]
            if self._choice.is_all:
                partition.passed(backlog, bound)
            else:
                partition.moved(backlog, self._choice, 0, 0, bound)


def _nothing_waits(backlog: Backlog, strays: object) -> None:
    raise AssertionError(f"a bounded pass opens no room: {backlog.name}, {strays!r}")
