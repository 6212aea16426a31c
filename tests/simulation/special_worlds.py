"""Worlds of workers in which something is otherwise: two clusters, workers of two releases, no room to park.

Owns: what is otherwise, and what has to hold there beside what holds everywhere. Must not know: how faults are made.
"""

from __future__ import annotations

import asyncio
import random

from catalog import Catalog
from pipeline.settings import Settings
from tests.simulation.faults import (
    BROKER_FAULTS,
    CALM,
    Fault,
    a_cluster_is_lost,
    find,
    lose,
    targets_are_denied,
)
from tests.simulation.kafka_cluster import Cluster
from tests.simulation.kafka_log import Log, Record
from tests.simulation.oracle import Violation
from tests.simulation.staged_events import NAMESPACE, TARGETS
from tests.simulation.worker import AHEAD, BATCH_RECORDS, Worker
from tests.simulation.worker_world import WorkerWorld
from tests.simulation.world import Program

__all__ = ["ApartWorld", "FullWorld", "SkewWorld"]

_LOST_S = 60.0


class ApartWorld(WorkerWorld):
    """Targets live on a cluster of their own. In every third world that one alone fails, at last for good."""

    kind = "apart"

    def __init__(self, seed: int, settings: Settings, catalog: Catalog) -> None:
        self._targets_alone = random.Random(seed).random() < 1 / 3
        hosts = tuple(f"target-{number}:9092" for number in range(3))
        super().__init__(seed, settings.model_copy(update={"target_brokers": hosts}), catalog)

    def make_clusters(self) -> list[Cluster]:
        """Staging's, and that of the targets."""
        self.targets = self.make_cluster("target", self._on_target)
        self.cluster.on_append = self._on_own
        return [self.cluster, self.targets]

    def fault_kinds(self) -> tuple[Fault, ...]:
        """Either cluster may be lost."""
        kinds = super().fault_kinds()
        if self.calm:
            return kinds
        if self._targets_alone:
            self.crash_is_wrong = "only the targets' cluster had failed"
            return (*CALM, *BROKER_FAULTS)
        return (*kinds, *[a_cluster_is_lost] * 5)

    def some_cluster(self) -> Cluster:
        """That of the targets, where it alone may fail."""
        return self.targets if self._targets_alone else super().some_cluster()

    async def _heal(self) -> None:
        """A cluster of targets that is lost stops no worker, and no start of one: all is parked, and committed (C3)."""
        if self._targets_alone and not self.calm:
            for task in self._turmoil:
                task.cancel()
            lose(self, self.targets, stopped=self.chance.random() < 0.5)
            program = self.some_program()
            if program is not None:
                await asyncio.wait([program.stop()])
            limit = self.loop.time() + _LOST_S
            while left := self.what_is_uncommitted():
                if self.loop.time() > limit:
                    raise Violation(f"C3: {_LOST_S:g} s after the targets' cluster was lost {left}")
                await asyncio.sleep(0.25)
            find(self, self.targets)
        await super()._heal()

    def _on_target(self, log: Log, records: list[Record]) -> None:
        if log.topic not in TARGETS:
            self.broken(Violation(f"N4: {log.topic} is no target, and on their cluster"))
        self.oracle.appended(log, records)

    def _on_own(self, log: Log, records: list[Record]) -> None:
        if log.topic in TARGETS:
            self.broken(Violation(f"N4: {log.topic} is a target, and not on their cluster"))
        self.oracle.appended(log, records)


class SkewWorld(WorkerWorld):
    """The first workers lack a definition that services use; later ones have it, and at last all have."""

    kind = "skew"

    def __init__(self, seed: int, settings: Settings, catalog: Catalog) -> None:
        unknown = random.Random(seed).choice(["order.paid", "parcel.lost"])
        self._older = Catalog((one for one in catalog if one.key != unknown), namespace=NAMESPACE)
        self._is_old: dict[str, bool] = {}
        self._share_of_old = 1.0
        super().__init__(seed, settings, catalog)

    def fault_kinds(self) -> tuple[Fault, ...]:
        """A release among them."""

        async def a_release(_: object) -> None:
            """From now on most new workers have the new catalog; no fault."""
            self._share_of_old = 0.3

        return (*super().fault_kinds(), *[a_release] * 4)

    def make_program(self, name: str) -> Program:
        """A worker of either release."""
        old = self._is_old[name] = self.chance.random() < self._share_of_old
        return self.make_worker(name, self._older if old else self.catalog)

    async def _heal(self) -> None:
        """All workers are of the new release."""
        await super()._heal()
        self._share_of_old = 0.0
        for program in list(self.programs):
            if self._is_old[program.process.name] and program.process.alive and not program.stopping:
                await asyncio.wait([program.stop()])


class FullWorld(WorkerWorld):
    """Little may be parked, and targets take nothing for long."""

    kind = "full"

    def __init__(self, seed: int, settings: Settings, catalog: Catalog) -> None:
        super().__init__(seed, settings.model_copy(update={"park_max_bytes": 1_000}), catalog)

    def fault_kinds(self) -> tuple[Fault, ...]:
        """Targets are denied more often."""
        kinds = super().fault_kinds()
        return kinds if self.calm else (*kinds, *[targets_are_denied] * 12)

    def work(self) -> None:
        """Far more is staged than may be parked, and nothing of it is large."""
        logs = self.cluster.topics[self.oracle.staging].logs
        self._stream.stage(logs, self.chance.randint(1, 24), 0.0)

    def check_bounds(self, program: Program) -> None:
        """P5: what is parked of a partition is what may be, beside one batch, and what had been handed out before."""
        super().check_bounds(program)
        assert isinstance(program, Worker)
        parked: dict[int, int] = {}
        for state in program.application.parked() if program.application is not None else ():
            parked[state.partition] = parked.get(state.partition, 0) + state.records
        most = self.settings.park_max_bytes // _SMALLEST_BYTES + AHEAD + 2 * BATCH_RECORDS
        for partition, records in parked.items():
            if records > most:
                self.broken(
                    Violation(f"P5: {records} records of partition {partition} are parked, {most} may be")
                )


_SMALLEST_BYTES = 150
"""What any staged record takes, at least."""
