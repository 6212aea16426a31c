"""Worlds of workers: a foreign producer stages events, workers deliver them.

Owns: the work, what a worker may hold, when everything has ended. Must not know: faults.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from catalog import Catalog
from pipeline.transport import consumer as consumer_module
from tests.simulation.faults import CALM, CLUSTER_FAULTS, PROCESS_FAULTS, Fault
from tests.simulation.oracle import Oracle, Violation
from tests.simulation.staged_events import NAMESPACE, SMALL_LIMIT_BYTES, TARGETS, TOO_LARGE_FOR, Stream
from tests.simulation.worker import AHEAD, BATCH_RECORDS, Worker
from tests.simulation.world import Outcome, Program, World

__all__ = ["WorkerWorld"]


class WorkerWorld(World):
    """Staging is full of events, and workers route them."""

    kind = "worker"
    oracle: Oracle

    def make_oracle(self) -> Oracle:
        """That of deliveries."""
        return Oracle(NAMESPACE, self.broken)

    def fault_kinds(self) -> tuple[Fault, ...]:
        """Everything but the disk."""
        cluster = self.clusters[-1]
        cluster.limits[TOO_LARGE_FOR] = SMALL_LIMIT_BYTES
        for target in TARGETS:
            if self.chance.random() < 0.5:
                cluster.create(target, 3)  # others are created by workers
        self._stream = Stream(self.chance, self.oracle)
        return CALM if self.calm else (*CALM, *CLUSTER_FAULTS, *PROCESS_FAULTS)

    def make_program(self, name: str) -> Program:
        """A worker, on a machine with nothing on its disk."""
        return self.make_worker(name, self.catalog)

    def make_worker(self, name: str, catalog: Catalog) -> Worker:
        """A worker with this catalog."""
        settings = self.settings.model_copy(update={"data_dir": str(self._folder / name)})
        return Worker(name, self.loop, settings, catalog)

    def run(self) -> Outcome:
        """With folders for what workers keep on disk, which they can do without."""
        self._folder = Path(tempfile.mkdtemp(prefix="stagepost-simulation-"))
        try:
            return super().run()
        finally:
            shutil.rmtree(self._folder)

    def work(self) -> None:
        """Events are staged."""
        if self.chance.random() < 0.5:
            logs = self.cluster.topics[self.oracle.staging].logs
            self._stream.stage(logs, self.chance.randint(1, 9), 0.08)

    def count_events(self) -> int:
        """All that were staged."""
        return len(self.oracle.events)

    def what_is_left(self) -> str:
        """Events, commits, and what workers hold."""
        unfinished = self.oracle.unfinished
        if unfinished:
            return f"{len(unfinished)} events have not ended: {unfinished[:5]}"
        uncommitted = self.what_is_uncommitted()
        if uncommitted:
            return f"all have ended, but {uncommitted}"
        return next(filter(None, map(_held_by, self.programs)), "")

    def what_is_uncommitted(self) -> str:
        """How far the group is, where that is not the end."""
        for log in self.cluster.topics[self.oracle.staging].logs:
            committed = self.cluster.committed.get((log.topic, log.partition), 0)
            if committed != log.end:
                waits = self.oracle.at(log.partition, committed)
                return f"partition {log.partition} is committed up to {committed} of {log.end}, {waits} waits"
        return ""

    def check_bounds(self, program: Program) -> None:
        """No partition is read far ahead of its first unfinished record."""
        assert isinstance(program, Worker)
        if program.consumer is None:
            return
        for tp, progress in program.consumer.progress.items():
            if progress._unfinished:
                ahead = progress.expected - progress._unfinished[0].first_offset
                if ahead > AHEAD + 2 * BATCH_RECORDS:
                    self.broken(Violation(f"{program.process.name} holds {ahead} records of {tp}"))


def _held_by(program: Program) -> str:
    """What a worker holds although everything has ended."""
    assert isinstance(program, Worker)
    name, consumer = program.process.name, program.consumer
    if not program.process.alive or program.stopping or consumer is None:
        return ""
    delivery = getattr(program.application, "_delivery", None)  # it may only just have started
    if delivery is not None and (delivery._under_way or delivery._put_off):
        return f"{name} still holds batches"
    if consumer._memory.free != consumer_module.UNFINISHED_BYTES:
        return f"{name} has {consumer._memory.free} bytes free, not all"
    return ""
