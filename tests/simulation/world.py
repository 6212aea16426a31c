"""One world: a cluster, workers, events, faults, and the judge, all from one seed.

Owns: the course of a run - turmoil, healing, the wait until everything has ended - and what must hold at its end.
Must not know: how many worlds there are.

What runs is the shipped worker as it is: `Application`, the routing agent, plan, delivery, producer, transport, and
under them Faust, mode and aiokafka with its consumer, group membership and metadata. Replaced is only this:

- time: `time.monotonic`, `time.time` (`virtual_time`), and the event loop, which lets time pass instead of waiting;
- the socket: `aiokafka.conn.AIOKafkaConnection` (`network`). Requests and answers cross it as the structs that would
  be encoded there, with real record batches in them. Behind it stands a cluster of our own (`kafka_cluster`);
- threads: mode's consumer thread is a set of tasks of the same loop;
- chance: `random` is seeded.

Made small, so that a few hundred events meet every bound: `AHEAD`, the records of a batch, Faust's session, heartbeat
and rebalance timeouts. Not started: the web server.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from catalog import Catalog
from pipeline.settings import Settings
from pipeline.transport import consumer as consumer_module
from tests.simulation.faults import CALM, FAULTS, Fault
from tests.simulation.kafka_cluster import Cluster
from tests.simulation.machine import Deadlock, Loop
from tests.simulation.network import Network
from tests.simulation.oracle import Oracle, Violation
from tests.simulation.staged_events import NAMESPACE, SMALL_LIMIT_BYTES, TOO_LARGE_FOR, Stream
from tests.simulation.substitutes import put_in_place
from tests.simulation.virtual_time import TIME
from tests.simulation.worker import AHEAD, BATCH_RECORDS, Worker

__all__ = ["Outcome", "World"]

_PARTITIONS = 2
_TURMOIL_S = 10.0
_PATIENCE_S = 300.0
_LOOK_S = 0.25


@dataclass(frozen=True)
class Outcome:
    """What became of a world. `violation`: the first rule that was broken."""

    seed: int
    digest: str
    events: int
    doubles: int
    faults: tuple[str, ...]
    violation: BaseException | None


class World:
    """The world of one seed."""

    def __init__(self, seed: int, settings: Settings, catalog: Catalog) -> None:
        TIME.reset()
        self.seed = seed
        self.chance = random.Random(seed)
        self.settings = settings
        self.catalog = catalog
        self.loop = Loop()
        self._end: asyncio.Future[None] = self.loop.create_future()
        self.oracle = Oracle(NAMESPACE, self._broken)
        nodes = self.chance.randint(1, 3)
        self.cluster = Cluster(self.loop, self.chance, nodes, self.oracle.appended, self.oracle.committed)
        self.cluster.limits[TOO_LARGE_FOR] = SMALL_LIMIT_BYTES
        self.network = Network(self.loop, self.chance, self.cluster)
        self.calm = seed % 6 == 0
        self.oracle.exactly_once = self.calm
        self.workers: list[Worker] = []
        self._started = 0
        self._wanted = self.chance.randint(1, 2)
        self._turmoil: list[asyncio.Task[None]] = []
        self._faults = self._plan()

    def run(self) -> Outcome:
        """Let it happen."""
        put_in_place(self.loop, self.network, self.seed)
        asyncio.set_event_loop(self.loop)
        violation: BaseException | None = None
        life = self.loop.create_task(self._live())
        life.add_done_callback(lambda done: self._over(None if done.cancelled() else done.exception()))
        try:
            self.loop.run_until_complete(self._end)
        except (Violation, Deadlock, Exception) as error:  # noqa: BLE001 -- whatever it is, it belongs to this seed
            violation = error
        outcome = Outcome(
            self.seed,
            self.oracle.digest,
            len(self.oracle.events),
            self.oracle.doubles,
            tuple(f"{at:.2f} {fault.__name__}" for at, fault in self._faults),
            violation,
        )
        self.loop.dispose()
        return outcome

    # --- for faults

    async def a_while(self, least_s: float, most_s: float) -> None:
        """Some time between these."""
        await asyncio.sleep(self.chance.uniform(least_s, most_s))

    def some_worker(self) -> Worker | None:
        """One that runs."""
        running = [worker for worker in self.workers if worker.process.alive and not worker.stopping]
        return self.chance.choice(running) if running else None

    def start_worker(self) -> None:
        """One more."""
        self._started += 1
        worker = Worker(f"worker-{self._started}", self.loop, self.settings, self.catalog)
        worker.process.on_death.append(lambda: self.network.process_died(worker.process))
        self.workers.append(worker)

    # --- the course of things

    def _plan(self) -> list[tuple[float, Fault]]:
        kinds = CALM if self.calm else FAULTS
        count = self.chance.randint(1, 3 if self.calm else 7)
        return sorted(
            ((self.chance.uniform(0, _TURMOIL_S), self.chance.choice(kinds)) for _ in range(count)),
            key=lambda planned: planned[0],
        )

    async def _live(self) -> None:
        began = self.loop.time()
        staging = self.cluster.create(self.oracle.staging, _PARTITIONS)
        for _ in range(self._wanted):
            self.start_worker()
        stream = Stream(self.chance, self.oracle)
        looking = self.loop.create_task(self._look_after_workers())
        planned = list(self._faults)
        while self.loop.time() - began < _TURMOIL_S or planned:
            while planned and self.loop.time() - began >= planned[0][0]:
                self._turmoil.append(self.loop.create_task(self._cause(planned.pop(0)[1])))
            if self.chance.random() < 0.5:
                stream.stage(staging.logs, self.chance.randint(1, 9), 0.08)
            await asyncio.sleep(self.chance.uniform(0.02, 0.3))
        await self._heal()
        await self._settle()
        looking.cancel()
        stops = [worker.stop() for worker in self.workers if worker.process.alive and not worker.stopping]
        if stops:
            await asyncio.wait(stops)

    async def _cause(self, fault: Fault) -> None:
        await fault(self)

    async def _heal(self) -> None:
        for task in self._turmoil:
            task.cancel()
        await asyncio.wait(self._turmoil)
        self.network.mend()
        self.cluster.elect()

    async def _settle(self) -> None:
        """Wait until every event has reached its end, everything is committed, and nobody holds anything."""
        limit = self.loop.time() + _PATIENCE_S
        while left := self._what_is_left():
            if self.loop.time() > limit:
                raise Violation(f"T6: {_PATIENCE_S:g} s after healing {left}")
            await asyncio.sleep(_LOOK_S)

    def _what_is_left(self) -> str:
        unfinished = self.oracle.unfinished
        if unfinished:
            return f"{len(unfinished)} events have not ended: {unfinished[:5]}"
        if not self._all_committed():
            return f"all have ended, but committed is only {self.cluster.committed}"
        return next(filter(None, (_held_by(worker) for worker in self.workers)), "")

    def _all_committed(self) -> bool:
        logs = self.cluster.topics[self.oracle.staging].logs
        return all(self.cluster.committed.get((log.topic, log.partition), 0) == log.end for log in logs)

    async def _look_after_workers(self) -> None:
        """As a supervisor does: what has died is replaced. And nobody holds more than he may."""
        while True:
            await asyncio.sleep(_LOOK_S)
            for worker in list(self.workers):
                if worker.has_crashed and worker.process.alive:
                    if self.calm:
                        self._broken(Violation(f"{worker.process.name} crashed, and nothing had failed"))
                    worker.process.kill()
                if not worker.process.alive:
                    self.workers.remove(worker)
                elif worker.consumer is not None:
                    self._check_bounds(worker)
            if len(self.workers) < self._wanted and self.chance.random() < 0.3:
                self.start_worker()

    def _check_bounds(self, worker: Worker) -> None:
        for tp, progress in worker.consumer.progress.items():
            if progress._unfinished:
                ahead = progress.expected - progress._unfinished[0].first_offset
                if ahead > AHEAD + 2 * BATCH_RECORDS:
                    self._broken(Violation(f"{worker.process.name} holds {ahead} records of {tp}"))

    def _broken(self, violation: Violation) -> None:
        self._over(violation)

    def _over(self, error: BaseException | None) -> None:
        if self._end.done():
            return
        if error is None:
            self._end.set_result(None)
        else:
            self._end.set_exception(error)


def _held_by(worker: Worker) -> str:
    """What a worker holds although everything has ended."""
    name, consumer = worker.process.name, worker.consumer
    if not worker.process.alive or worker.stopping or consumer is None:
        return ""
    delivery = getattr(worker.application, "_delivery", None)  # it may only just have started
    if delivery is not None and (delivery._under_way or delivery._put_off):
        return f"{name} still holds batches"
    if consumer._memory.free != consumer_module.UNFINISHED_BYTES:
        return f"{name} has {consumer._memory.free} bytes free, not all"
    return ""
