"""Worlds of services: processes that share one outbox folder stage events, and nobody consumes.

Owns: the disk of a world, when everything has ended. Must not know: what callers are told.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pipeline.outbox import files, keys, room, sharing, slots, store
from pipeline.outbox import process as process_module
from pipeline.outbox.files import ASIDE
from pipeline.outbox.process import ProcessOutbox
from pipeline.outbox.row import decode
from tests.simulation.disk import Batch, Disk
from tests.simulation.faults import CALM, CLUSTER_FAULTS, DISK_FAULTS, PROCESS_FAULTS, Fault
from tests.simulation.fibers import Fiber, Threads, doze
from tests.simulation.machine import Loop, Process, current_process
from tests.simulation.service import Service
from tests.simulation.staged_events import NAMESPACE
from tests.simulation.staging_oracle import StagingOracle
from tests.simulation.world import Outcome, Program, World

__all__ = ["ServiceWorld"]


class ServiceWorld(World):
    """Services stage while brokers and the disk come and go."""

    kind = "service"
    oracle: StagingOracle

    def make_oracle(self) -> StagingOracle:
        """That of calls."""
        return StagingOracle(NAMESPACE, self.broken)

    def fault_kinds(self) -> tuple[Fault, ...]:
        """Everything, the disk too."""
        return CALM if self.calm else (*CALM, *CLUSTER_FAULTS, *PROCESS_FAULTS, *DISK_FAULTS)

    def make_program(self, name: str) -> Program:
        """A service."""
        return Service(name, self.loop, self.settings, self.catalog, self.chance, self.oracle)

    def run(self) -> Outcome:
        """With a disk, and a folder for the outbox, which is gone when the world ends."""
        self.disk = Disk(self.chance)
        folder = tempfile.mkdtemp(prefix="stagepost-simulation-")
        small = {"outbox_dir": folder, "max_buffered_records": 8, "cb_min_requests": 4}
        self.settings = self.settings.model_copy(update=small)
        _put_disk_in_place(self.loop, self.disk)
        try:
            return super().run()
        finally:
            shutil.rmtree(folder)

    def process_died(self, process: Process) -> None:
        """Its locks are free, too, and what it had not synced is lost."""
        super().process_died(process)
        self.disk.process_died(process)

    def count_events(self) -> int:
        """All calls."""
        return len(self.oracle.calls)

    def what_is_left(self) -> str:
        """Events that were said to be durable, and rows."""
        for program in self.programs:
            assert isinstance(program, Service)
            program.silent = True
        damaged = [decode(row).id for row in self.disk.damaged]
        missing = sorted(set(self.oracle.missing) - set(damaged))
        # A row that rots once the relay has read it is shipped as it was.
        lost = len(set(self.oracle.missing) & set(damaged))
        if missing:
            return f"{len(missing)} events are not on the staging topic: {missing[:5]}"
        if any(call.answer == "" and self._is_alive(call.caller[0]) for call in self.oracle.calls.values()):
            return "somebody still waits for an answer"
        rows = [row for files in self.disk.files.values() for row in files.rows()]
        aside = sum(row.startswith(ASIDE) for row in rows)
        if len(rows) > aside:
            return f"{len(rows) - aside} rows are left"
        if not lost <= aside <= len(damaged):
            return f"{aside} rows are set aside, and {damaged} were damaged"
        self.oracle.check_order()
        return ""

    def _is_alive(self, name: str) -> bool:
        return any(one.process.name == name and one.process.alive for one in self.programs)


class _OfProcess(MutableMapping[Path, ProcessOutbox]):
    """What is global to a process, of each process."""

    def __init__(self) -> None:
        self._of: dict[Process | None, dict[Path, ProcessOutbox]] = {}

    def _here(self) -> dict[Path, ProcessOutbox]:
        return self._of.setdefault(current_process(), {})

    def __getitem__(self, key: Path) -> ProcessOutbox:
        return self._here()[key]

    def __setitem__(self, key: Path, value: ProcessOutbox) -> None:
        self._here()[key] = value

    def __delitem__(self, key: Path) -> None:
        del self._here()[key]

    def __iter__(self) -> Iterator[Path]:
        return iter(self._here())

    def __len__(self) -> int:
        return len(self._here())


def _put_disk_in_place(loop: Loop, disk: Disk) -> None:
    def start_thread(work: Callable[[], None]) -> None:
        Fiber(loop, work).begin()

    loop.start_thread = start_thread
    if disk.chance.random() < 0.5:  # a busy machine
        loop.before_a_thread_calls = lambda: doze(disk.chance.choice([0.0, 0.0, 0.1]))
    system: Any = disk  # it has the functions of `os` and `fcntl` that are used
    for module, names in (
        (process_module, {"threading": Threads(loop)}),
        (keys, {"threading": Threads(loop)}),
        (slots, {"os": system, "fcntl": system}),
        (room, {"os": system}),
        (store, {"Rdict": disk.database, "WriteOptions": SimpleNamespace, "options": dict}),
        (files, {"WriteBatch": Batch}),
    ):
        for name, substitute in names.items():
            assert hasattr(module, name), f"{module.__name__} uses no {name} any more"
            setattr(module, name, substitute)
    sharing._shared = _OfProcess()  # type: ignore[assignment]
