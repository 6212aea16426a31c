"""Parking, put together: what is diverted, what is parked, when it is learnt, watched, drained and noted.

Owns: the partitions this worker has, the tick that keeps everything going. Must not know: Faust, the plan.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterable
from dataclasses import replace

from catalog import OwnTopics
from pipeline.breaker import State
from pipeline.clock import Clock
from pipeline.kafka.cluster import Cluster
from pipeline.kafka.lane import Parcel
from pipeline.kafka.topics import TopicSpecs
from pipeline.meter import Meter
from pipeline.park import Diverted, ParkedState, is_skew
from pipeline.parking.backlog import Backlog, Partition, Stray
from pipeline.parking.breakers import Breakers, TargetState
from pipeline.parking.drain import Drainer, Moves
from pipeline.parking.learn import LEARNING, OpenReader, learn_all
from pipeline.parking.store import Store, Trim
from pipeline.parking.watch import Watch
from pipeline.settings import Settings

__all__ = ["Parking"]

log = logging.getLogger(__name__)

_TICK_S, _IDLE_TICK_S = 0.1, 0.5
_SAVE_S = 1.0
_OWN_S = 1.0


class Parking:
    """What one worker has parked, of the partitions it has. Bound to one event loop.

    Wire it with `connect` before `start`.
    """

    def __init__(
        self,
        settings: Settings,
        topics: OwnTopics,
        specs: TopicSpecs,
        breakers: Breakers,
        *,
        targets: Cluster,
        own: Cluster,
        open_reader: OpenReader,
        trim: Trim,
        clock: Clock,
        meter: Meter,
    ) -> None:
        self._settings = settings
        self._topics = topics
        self._specs = specs
        self._breakers = breakers
        self._targets = targets
        self._own = own
        self._open_reader = open_reader
        self._clock = clock
        self.partitions: dict[int, Partition] = {}
        """Those that this worker has and knows what is parked of. Changes as they come and go."""
        self._store = Store(own, topics, clock, trim, meter)
        self._watch = Watch(breakers, settings.target_soft_timeout_s)
        self._reached: Counter[str] = Counter()
        self._waiting: list[tuple[int, Callable[[], None]]] = []
        self._next_save = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._learning: asyncio.Task[None] | None = None
        self._lacking = LEARNING
        """Why partitions that are ours are not known."""

    def connect(self, detour: Moves) -> None:
        """Say who moves events between lanes and here."""
        self._evict = detour.evict
        self._breakers.on_change = self._changed
        self.drainer = Drainer(
            self._topics,
            self._breakers,
            self.partitions,
            open_reader=self._open_reader,
            check=self._check,
            detour=detour,
            park=self._park_all,
            clock=self._clock,
            room_s=self._settings.target_soft_timeout_s,
        )

    # -- what delivery asks ----------------------------------------------------------------------

    def diverted(self, number: int) -> Diverted:
        """What of a staging partition may not go its straight way now. Cheap: asked for each batch."""
        return self.partitions[number].diverted(self._breakers.shut)

    def full(self, number: int) -> str:
        """Why nothing more may be parked from a staging partition; empty where it may."""
        partition = self.partitions[number]
        if partition.bytes < self._settings.park_max_bytes:
            return ""
        names = ", ".join(sorted(backlog.name for backlog in partition))
        return f"parked events fill PARK_MAX_BYTES: {names}"

    def divert(self, number: int, name: str, stray: Stray) -> Parcel | None:
        """Park records, or let them wait in the room of their backlog: then there is no parcel."""
        partition = self.partitions[number]
        backlog = partition.get(name)
        if backlog is None:
            reason = "not known to this worker" if is_skew(name) else self._breakers.reason(name)
            backlog = self._open(partition, name, reason)
        if backlog.room is not None:
            backlog.room.append(stray)
            return None
        return self._store.park(partition, backlog, stray)

    def reached(self, target: str, count: int) -> None:
        """`count` events were acknowledged by a target. Cheap: told for each parcel."""
        self._reached[target] += count

    # -- what the worker tells -------------------------------------------------------------------

    def start(self) -> None:
        """Begin to watch, drain and note."""
        self._run(self._tick_on(), "stagepost-parking")

    def unknown(self, number: int) -> str:
        """Why it is not known what is parked from a staging partition, which must not be routed before; empty once it
        is."""
        return "" if number in self.partitions else self._lacking

    def when(self, number: int, then: Callable[[], None]) -> None:
        """Call `then` once a partition is known and not full, or unknown for another reason; never, where it is lost
        before."""
        self._waiting.append((number, then))

    def assigned(self, numbers: Collection[int]) -> None:
        """These staging partitions are ours from now on: learn what is parked of them."""
        if self._learning is not None:
            self._learning.cancel()
        self._lacking = LEARNING
        self._learning = self._run(self._learn(numbers), "stagepost-learn") if numbers else None

    def stop(self) -> None:
        """The partitions are about to be given away: drain nothing more; what waits in rooms is parked."""
        self.drainer.stop("the partition is given away")

    async def settle(self) -> None:
        """Wait, without limit, for what is drained right now, and until it is noted how far everything is."""
        await self.drainer.finished()
        for partition in list(self.partitions.values()):
            await self._store.settled(partition)

    def let_go(self) -> None:
        """The partitions belong to somebody else."""
        if self._learning is not None:
            self._learning.cancel()
        self.drainer.let_go()
        for partition in self.partitions.values():
            partition.is_ours = False
        self.partitions.clear()
        self._waiting.clear()
        self._store.let_go()

    async def close(self) -> None:
        """End at once."""
        await self.drainer.close()
        await self._store.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)

    # -- what errands ask ------------------------------------------------------------------------

    async def noted(self, number: int) -> bool:
        """Wait until it is durable how a partition stands now; false where it was given away meanwhile."""
        partition = self.partitions.get(number)
        return partition is not None and await self._store.settled(partition)

    # -- what pages ask --------------------------------------------------------------------------

    def parked(self) -> list[ParkedState]:
        """A snapshot of all cursors."""
        states = (backlog.state() for partition in self.partitions.values() for backlog in partition)
        return [state for state in states if state is not None]

    def standing(self, target: str) -> TargetState:
        """A snapshot of one target, with what is parked for it."""
        parked = [state for state in self.parked() if state.target == target]
        return replace(
            self._breakers.standing(target),
            parked_records=sum(state.records for state in parked),
            parked_bytes=sum(state.bytes for state in parked),
            parked_oldest_at=min((state.oldest_at for state in parked), default=None),
        )

    # -- keeping it going ------------------------------------------------------------------------

    async def _tick_on(self) -> None:
        while True:
            try:
                await self._tick()
            except Exception:
                log.exception("parking.failed -- it goes on; please report this")
            await asyncio.sleep(_IDLE_TICK_S if self._is_idle() else _TICK_S)

    def _is_idle(self) -> bool:
        """Whether nothing is parked, shut, under way or waiting."""
        parked = any(list(partition) for partition in self.partitions.values())
        under_way = self._reached or self._targets.producer.busy_lanes()
        return not (parked or under_way or self._waiting or self._breakers.shut)

    async def _tick(self) -> None:
        now = self._clock.monotonic()
        reached, self._reached = self._reached, Counter()
        for target, count in reached.items():
            self._breakers.succeeded(target, count)
        await self._judge(now)
        self.drainer.tick(now)
        self._call(lambda number: number in self.partitions and not self.full(number))
        if now >= self._next_save:
            self._next_save = now + _SAVE_S
            for partition in self.partitions.values():
                self._store.save(partition)
            self._store.trim(self.partitions, now)

    async def _judge(self, now: float) -> None:
        for finding in self._watch.look(self._targets.producer.busy_lanes(), now):
            if finding.certain:
                self._breakers.trip(finding.target, finding.reason)
            elif not await self._own_is_well():
                return  # nothing could be parked, and it is not the target's fault alone
            else:
                overdue_s = self._settings.target_soft_timeout_s
                self._breakers.failed(finding.target, finding.records, finding.reason, overdue_s=overdue_s)
            self._evict(finding.target, finding.reason)

    async def _own_is_well(self) -> bool:
        number = next(iter(self.partitions), 0)
        try:
            await self._own.producer.check(self._topics.parked, number, _OWN_S)
        except Exception as error:  # noqa: BLE001 -- whatever it is: nothing can be parked now
            log.warning("parking.impossible topic=%s error=%r", self._topics.parked, error)
            return False
        return True

    async def _check(self, target: str) -> None:
        limit = self._settings.target_soft_timeout_s
        await self._targets.know_again(self._specs.target(target), limit)
        await self._targets.producer.check(target, 0, limit)

    def _changed(self, target: str, former: State) -> None:
        state, reason = self._breakers.state(target), self._breakers.reason(target)
        if state is State.CLOSED:
            log.info("breaker.closed target=%s", target)
            self.drainer.well(target)
        elif former is State.CLOSED:
            log.error("breaker.opened target=%s reason=%r", target, reason)
            self.drainer.shut(target, reason)
            self._evict(target, reason)

    def _open(self, partition: Partition, name: str, reason: str) -> Backlog:
        if is_skew(name):
            log.error("parking.unknown name=%r partition=%d", name, partition.number)
        return partition.open(name, reason)

    def _park_all(self, backlog: Backlog, strays: Iterable[Stray]) -> None:
        for stray in strays:
            self._store.park(self.partitions[backlog.partition], backlog, stray)

    async def _learn(self, numbers: Collection[int]) -> None:
        parks_unknown = self._settings.unknown_definition == "park"
        async for found, lacking in learn_all(self._open_reader, self._topics, numbers):
            for number, checkpoint in found.items():
                self.partitions[number] = Partition(number, checkpoint, parks_unknown=parks_unknown)
            if lacking and lacking != self._lacking:
                self._lacking = lacking
                self._call(lambda number: number not in self.partitions)

    def _call(self, ready: Callable[[int], bool]) -> None:
        """Call those who wait for a partition that is ready."""
        waiting, self._waiting = self._waiting, []
        for number, then in waiting:
            if ready(number):
                then()
            else:
                self._waiting.append((number, then))

    def _run(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
