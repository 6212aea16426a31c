"""One world: a cluster, programs, faults, and a judge, all from one seed.

Owns: the course of a run - turmoil, healing, the wait until everything has ended. Must not know: which programs run
(`worker_world`, `service_world`), what they promise.

What runs is shipped code as it is. Of the worker: `Application`, the routing agent, plan, delivery, producer,
transport, and under them Faust, mode and aiokafka with its consumer, group membership and metadata. Of a service:
`KafkaStager` with everything below. Replaced is only this:

- time: `time.monotonic`, `time.time` (`virtual_time`), and the event loop, which lets time pass instead of waiting;
- the socket: `aiokafka.conn.AIOKafkaConnection` (`network`). Requests and answers cross it as the structs that would
  be encoded there, with real record batches in them. Behind it stands a cluster of our own (`kafka_cluster`);
- threads: mode's consumer thread is tasks of the same loop; the outbox's writer takes turns with it (`fibers`),
  and on a busy machine others run between its last step and what it tells the loop;
- the disk under the outbox: RocksDB, `flock`, `posix_fallocate` (`disk`);
- chance: `random` is seeded.

Made small, so that a few hundred events meet every bound: `AHEAD`, the records of a batch, Faust's session, heartbeat
and rebalance timeouts. Not started: the web server.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from catalog import Catalog
from pipeline.settings import Settings
from tests.simulation.kafka_cluster import Cluster
from tests.simulation.kafka_log import Log, Record
from tests.simulation.machine import Loop, Process
from tests.simulation.network import Network
from tests.simulation.oracle import Violation
from tests.simulation.substitutes import put_in_place
from tests.simulation.virtual_time import TIME

if TYPE_CHECKING:
    from tests.simulation.faults import Fault

__all__ = ["Oracle", "Outcome", "Program", "World"]

PARTITIONS = 2
_TURMOIL_S = 6.0
_PATIENCE_S = 300.0
_LOOK_S = 0.25
_CPU_S = 20.0
"""A hundred times what a world takes."""


class _Hang(KeyboardInterrupt):
    """A program holds the event loop and never lets go; asyncio lets only this kind of exception through."""


def _hang(*_: object) -> None:
    raise _Hang(f"S7: somebody held the event loop for {_CPU_S:g} s of CPU time")


@dataclass(frozen=True)
class Outcome:
    """What became of a world. `violation`: the first rule that was broken."""

    kind: str
    seed: int
    digest: str
    events: int
    doubles: int
    faults: tuple[str, ...]
    violation: BaseException | None


class Oracle(Protocol):
    """The judge of a kind of world."""

    staging: str
    doubles: int
    exactly_once: bool
    on_time: bool

    @property
    def digest(self) -> str:
        """What happened, in one word."""
        ...

    def appended(self, log: Log, records: list[Record]) -> None:
        """Records are on a topic."""
        ...

    def committed(self, topic: str, partition: int, offset: int) -> None:
        """The group has committed this offset."""
        ...


class Program(Protocol):
    """What runs in a process."""

    process: Process
    stopping: bool

    @property
    def has_crashed(self) -> bool:
        """Whether it gave up, after which the process exits."""
        ...

    def stop(self) -> asyncio.Future[None]:
        """Stop it as SIGTERM does; done when it is gone."""
        ...


class World:
    """The world of one seed. Subclasses say which programs run, what they are given to do, and what must hold."""

    kind = ""

    def __init__(self, seed: int, settings: Settings, catalog: Catalog) -> None:
        TIME.reset()
        self.seed = seed
        self.chance = random.Random(seed)
        self.settings = settings
        self.catalog = catalog
        self.loop = Loop()
        self._end: asyncio.Future[None] = self.loop.create_future()
        self.oracle: Oracle = self.make_oracle()
        self.cluster = self.make_cluster("node", self.oracle.appended)
        """Staging's."""
        self.clusters = self.make_clusters()
        self.network = Network(self.loop, self.chance, self.clusters)
        self.calm = self.chance.random() < 1 / 6
        self.oracle.exactly_once = self.calm
        self.crash_is_wrong = "nothing had failed" if self.calm else ""
        """Why nobody may give up; empty where somebody may."""
        self.programs: list[Program] = []
        self._started = 0
        self._wanted = self.chance.randint(1, 2)
        self._turmoil: list[asyncio.Task[None]] = []
        self._faults = self._plan()

    # --- what a kind of world says

    def make_oracle(self) -> Oracle:
        """Its judge."""
        raise NotImplementedError

    def make_clusters(self) -> list[Cluster]:
        """All clusters there are."""
        return [self.cluster]

    def fault_kinds(self) -> tuple[Fault, ...]:
        """What may go wrong; in a calm world only what is no fault."""
        raise NotImplementedError

    def make_program(self, name: str) -> Program:
        """One more of its programs, running."""
        raise NotImplementedError

    def work(self) -> None:
        """Something to do, now and then, while there is turmoil."""

    def what_is_left(self) -> str:
        """What has not ended; empty where all has."""
        raise NotImplementedError

    def check_bounds(self, program: Program) -> None:
        """Nobody holds more than he may."""

    def count_events(self) -> int:
        """How many events there were."""
        raise NotImplementedError

    def make_cluster(self, name: str, on_append: Callable[[Log, list[Record]], None]) -> Cluster:
        """One of one to three nodes."""
        return Cluster(
            name, self.loop, self.chance, self.chance.randint(1, 3), on_append, self.oracle.committed
        )

    # --- for faults

    def some_cluster(self) -> Cluster:
        """One that may fail."""
        return self.clusters[0] if len(self.clusters) == 1 else self.chance.choice(self.clusters)

    async def a_while(self, least_s: float, most_s: float) -> None:
        """Some time between these."""
        await asyncio.sleep(self.chance.uniform(least_s, most_s))

    def some_program(self) -> Program | None:
        """One that runs."""
        running = [one for one in self.programs if one.process.alive and not one.stopping]
        return self.chance.choice(running) if running else None

    def start_program(self) -> None:
        """One more."""
        self._started += 1
        program = self.make_program(f"{self.kind}-{self._started}")
        program.process.on_death.append(lambda: self.process_died(program.process))
        self.programs.append(program)

    def process_died(self, process: Process) -> None:
        """Its connections are gone."""
        self.network.process_died(process)

    # --- the course of things

    def run(self) -> Outcome:
        """Let it happen."""
        put_in_place(self.loop, self.network, self.seed)
        asyncio.set_event_loop(self.loop)
        violation: BaseException | None = None
        life = self.loop.create_task(self._live())
        life.add_done_callback(lambda done: self._over(None if done.cancelled() else done.exception()))
        signal.signal(signal.SIGVTALRM, _hang)
        signal.setitimer(signal.ITIMER_VIRTUAL, _CPU_S)
        try:
            self.loop.run_until_complete(self._end)
        except (_Hang, Exception) as error:  # noqa: BLE001 -- whatever it is, it belongs to this seed
            violation = error
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        faults = tuple(f"{at:.2f} {fault.__name__}" for at, fault in self._faults)
        oracle = self.oracle
        outcome = Outcome(
            self.kind, self.seed, oracle.digest, self.count_events(), oracle.doubles, faults, violation
        )
        self.loop.dispose()
        return outcome

    def broken(self, violation: Violation) -> None:
        """A rule is broken: this is the end."""
        self._over(violation)

    def _plan(self) -> list[tuple[float, Fault]]:
        kinds = self.fault_kinds()
        count = self.chance.randint(1, 3 if self.calm else 7)
        return sorted(
            ((self.chance.uniform(0, _TURMOIL_S), self.chance.choice(kinds)) for _ in range(count)),
            key=lambda planned: planned[0],
        )

    async def _live(self) -> None:
        began = self.loop.time()
        self.cluster.create(self.oracle.staging, PARTITIONS)
        for _ in range(self._wanted):
            self.start_program()
        looking = self.loop.create_task(self._look_after_programs())
        planned = list(self._faults)
        while self.loop.time() - began < _TURMOIL_S or planned:
            while planned and self.loop.time() - began >= planned[0][0]:
                self._turmoil.append(self.loop.create_task(self._cause(planned.pop(0)[1])))
            self.work()
            await asyncio.sleep(self.chance.uniform(0.02, 0.3))
        await self._heal()
        await self._settle()
        looking.cancel()
        stops = [one.stop() for one in self.programs if one.process.alive and not one.stopping]
        if stops:
            await asyncio.wait(stops)

    async def _cause(self, fault: Fault) -> None:
        await fault(self)

    async def _heal(self) -> None:
        for task in self._turmoil:
            task.cancel()
        await asyncio.wait(self._turmoil)
        self.network.mend()
        for cluster in self.clusters:
            cluster.elect()

    async def _settle(self) -> None:
        limit = self.loop.time() + _PATIENCE_S
        while left := self.what_is_left():
            if self.loop.time() > limit:
                raise Violation(f"T6: {_PATIENCE_S:g} s after healing {left}")
            await asyncio.sleep(_LOOK_S)

    async def _look_after_programs(self) -> None:
        """As a supervisor does: what has died is replaced."""
        while True:
            await asyncio.sleep(_LOOK_S)
            for program in list(self.programs):
                if program.has_crashed and program.process.alive:
                    if self.crash_is_wrong:
                        self.broken(Violation(f"C3: {program.process.name} crashed: {self.crash_is_wrong}"))
                    program.process.kill()
                if not program.process.alive:
                    self.programs.remove(program)
                else:
                    self.check_bounds(program)
            if len(self.programs) < self._wanted and self.chance.random() < 0.3:
                self.start_program()

    def _over(self, error: BaseException | None) -> None:
        if self._end.done():
            return
        if error is None:
            self._end.set_result(None)
        else:
            self._end.set_exception(error)
