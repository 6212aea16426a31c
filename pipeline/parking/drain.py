"""Draining: which backlogs may be drained now, by how many passes at once, and probing a sick target.

Owns: starting and ending sweeps, the probe of a half-open breaker. Must not know: how a chunk is delivered, the
transport.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

from catalog import OwnTopics
from pipeline.breaker import State
from pipeline.clock import Clock
from pipeline.park import Choice, is_skew
from pipeline.parking.backlog import Backlog, Partition, Stray
from pipeline.parking.bounded import Bounded
from pipeline.parking.breakers import Breakers
from pipeline.parking.learn import OpenReader
from pipeline.parking.sweep import Chunk, Deliver, Sweep

__all__ = ["Drainer", "Moves"]

log = logging.getLogger(__name__)

T = TypeVar("T")
_SWEEPS = 3
"""Passes at once: each takes memory, and what it reads in vain is what others wait for."""
_PROBES = 4
_PAUSE_S = 1.0
_AGAIN_S = 5.0
"""After which a backlog is tried again whose target is well and which could not be drained all the same."""


class Moves(Protocol):
    """Moves chunks into the lanes of their targets, and what is in lanes to the parked topic."""

    def drain(self, chunk: Chunk) -> str:
        """Deliver a chunk; see `pipeline.parking.sweep.Deliver`."""
        ...

    def abandon(self, chunks: list[Chunk]) -> None:
        """Take chunks back: they stay parked."""
        ...

    def evict(self, target: str, reason: str) -> None:
        """Park everything that is in a target's lanes."""
        ...

    def is_ready(self, name: str) -> bool:
        """Whether it is known where to deliver what is parked under a name; else it is asked for."""
        ...


class Drainer:
    """Drains what may be drained. Bound to one event loop.

    `check`: ask a target whether it would take events, raising what is wrong with it.
    """

    def __init__(
        self,
        topics: OwnTopics,
        breakers: Breakers,
        partitions: dict[int, Partition],
        *,
        open_reader: OpenReader,
        check: Callable[[str], Awaitable[None]],
        detour: Moves,
        park: Callable[[Backlog, list[Stray]], None],
        clock: Clock,
        room_s: float,
    ) -> None:
        self._topics = topics
        self._breakers = breakers
        self._partitions = partitions
        self._open_reader = open_reader
        self._check = check
        self._detour = detour
        self._park = park
        self._clock = clock
        self._room_s = room_s
        self._sweeps: dict[Sweep, asyncio.Task[Any]] = {}
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._probing: set[Sweep] = set()
        self._few = asyncio.Semaphore(_PROBES)
        self._not_before: dict[Backlog, float] = {}
        self.stopped = False
        """Whether the partitions are about to be given away: then nothing may be started."""

    def tick(self, now: float) -> None:
        """Start what is due. Does not block."""
        if self.stopped:
            return
        for target in self._breakers.due_probes():
            probe = asyncio.create_task(self._probe(target), name=f"probe {target}")
            self._probes[target] = probe
            probe.add_done_callback(partial(self._probed, target))
        if len(self._sweeps) < _SWEEPS:
            ready = [
                b for partition in self._partitions.values() for b in partition if self._is_ready(b, now)
            ]
            if ready:
                sweep = self._sweep(ready)
                self._begin(sweep, self._run(sweep), "stagepost-drain")

    def carry_out(
        self, bounds: Mapping[Backlog, int], choice: Choice, deliver: Deliver
    ) -> tuple[Bounded, asyncio.Task[bool]]:
        """Start a pass that an operator ordered, whatever the breakers say, for backlogs that nobody drains now.

        Out: the pass, and its end: whether the parked topic could be read.
        """
        sweep = Bounded(
            self._topics.parked,
            self._partitions,
            bounds,
            choice,
            deliver=deliver,
            abandon=self._detour.abandon,
            clock=self._clock,
            share=len(self._sweeps) + 1,
        )
        return sweep, self._begin(sweep, self._read(sweep), "stagepost-errand")

    def shut(self, target: str, reason: str) -> None:
        """A target's breaker is not closed any more: drain no more of it."""
        for sweep in self._sweeps:
            for backlog in sweep.backlogs:
                if backlog.name == target:
                    sweep.fail(backlog, reason)

    def well(self, target: str) -> None:
        """A target's breaker closed: what failed before says nothing any more."""
        self._not_before = {b: at for b, at in self._not_before.items() if b.name != target}

    def stop(self, reason: str) -> None:
        """Start nothing more; what waits in rooms is parked, chunks under way go on."""
        self.stopped = True
        for sweep in self._sweeps:
            sweep.stop(reason)

    async def finished(self) -> None:
        """Wait, without limit, until nothing is under way."""
        while tasks := [*self._sweeps.values(), *self._probes.values()]:
            await asyncio.wait(tasks)

    def let_go(self) -> None:
        """The partitions belong to somebody else: what is under way is taken back. Then begin anew."""
        for sweep in [*self._sweeps, *self._probing]:
            self._detour.abandon(sweep.drop())
        for task in [*self._sweeps.values(), *self._probes.values()]:
            task.cancel()
        self._not_before.clear()
        self.stopped = False

    async def close(self) -> None:
        """End everything at once."""
        self.let_go()
        self.stopped = True
        tasks = [*self._sweeps.values(), *self._probes.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)

    def _is_ready(self, backlog: Backlog, now: float) -> bool:
        if backlog.cursor is None or backlog.drained_by is not None:
            return False
        if now < self._not_before.get(backlog, now):
            return False
        name = backlog.name
        may_go = is_skew(name) or (name in self._breakers and self._breakers.state(name) is State.CLOSED)
        return may_go and self._detour.is_ready(name)

    def _sweep(self, backlogs: list[Backlog], *, probe: bool = False) -> Sweep:
        return Sweep(
            self._topics.parked,
            self._partitions,
            backlogs,
            deliver=self._detour.drain,
            abandon=self._detour.abandon,
            park=self._park,
            clock=self._clock,
            room_s=self._room_s,
            share=len(self._sweeps) + 1,
            probe=probe,
        )

    def _begin(self, sweep: Sweep, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        task = self._sweeps[sweep] = asyncio.create_task(work, name=name)
        # Not at the end of the work: of a task that is cancelled before its first turn nothing runs, not even that.
        task.add_done_callback(lambda _: self._sweeps.pop(sweep, None))
        return task

    async def _run(self, sweep: Sweep) -> None:
        backlogs = sweep.backlogs
        names = ",".join(sorted({backlog.name for backlog in backlogs}))
        log.info("drain.begun events=%d names=%r", sum(backlog.records for backlog in backlogs), names)
        await self._read(sweep)
        for name, reason in sweep.failures.items():
            log.warning("drain.stopped name=%r reason=%r", name, reason)
        log.info("drain.ended events=%d names=%r", sweep.reached, names)
        now = self._clock.monotonic()
        self._not_before = {b: at for b, at in self._not_before.items() if at > now}
        self._not_before.update((b, now + _AGAIN_S) for b in backlogs if b.name in sweep.failures)

    async def _read(self, sweep: Sweep) -> bool:
        """Run a sweep; whether the parked topic could be read."""
        was_read = True
        try:
            async with self._open_reader() as reader:
                await sweep.run(reader)
        except Exception as error:  # noqa: BLE001 -- whatever it is: what is parked stays parked, and is tried again
            sweep.stop(f"the parked topic cannot be read: {error!r}")
            was_read = False
        await sweep.finished()
        return was_read

    async def _probe(self, target: str) -> None:
        """The head parked event, or with none a metadata and authorisation check (B2)."""
        try:
            await self._check(target)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is what is wrong with the target
            self._breakers.probe_failed(target, f"probe: {error!r}")
            return
        async with self._few:
            await self._probe_head(target)

    def _probed(self, target: str, probe: asyncio.Task[None]) -> None:
        """A probe has ended, however: its breaker must not wait for it any more."""
        if self._probes.get(target) is probe:
            del self._probes[target]
            if probe.cancelled():
                self._breakers.probe_cancelled(target)
            elif (error := probe.exception()) is not None:
                log.error("drain.probe_failed target=%s -- please report this", target, exc_info=error)
                self._breakers.probe_cancelled(target)

    async def _probe_head(self, target: str) -> None:
        while (backlog := self._head(target)) is not None:
            at = backlog.cursor.first if backlog.cursor else 0
            sweep = self._sweep([backlog], probe=True)
            self._probing.add(sweep)
            try:
                was_read = await self._read(sweep)
            finally:
                self._probing.discard(sweep)
            if not was_read:
                await asyncio.sleep(_PAUSE_S)
                self._breakers.probe_cancelled(target)
                return
            if target in sweep.failures:
                self._breakers.probe_failed(target, f"probe: {sweep.failures[target]}")
                return
            if sweep.reached:
                break
            if backlog.cursor is None or backlog.cursor.first == at:
                break  # nothing was there
        self._breakers.probe_succeeded(target)

    def _head(self, target: str) -> Backlog | None:
        backlogs = (partition.get(target) for partition in self._partitions.values())
        return next(
            (b for b in backlogs if b is not None and b.cursor is not None and not b.drained_by), None
        )
