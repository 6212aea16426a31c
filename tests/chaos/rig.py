"""Everything under fire: three brokers, a worker, two services, their disks; and what keeps them running.

Owns: starting, restarting what died, as a supervisor would, and ending it all. Must not know: which faults there are,
when one strikes, what the outcome has to be.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from devtools.kafka import Cluster
from tests.chaos.small_disk import SmallDisk, can_mount
from tests.chaos.stranger import Stranger
from tests.chaos.witness import Witness
from tests.kafka_client import create_topic
from tests.process_harness import ROOT
from tests.service_harness import Callers, GunicornService
from tests.worker_harness import WorkerProcess

__all__ = ["ACLS", "Rig", "ServiceProcess"]

CATALOG = "tests.chaos.chaos_catalog"
PARTITIONS = 3
_LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
ACLS = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
    # Controllers talk to each other before any rule is loaded: that takes a name that no rule binds.
    "super.users": "User:broker",
    "listener.security.protocol.map": "CONTROLLER:SASL_PLAINTEXT,"
    + ",".join(f"{name}:PLAINTEXT" for name in ("PLAINTEXT", "PEER", "SERVICES", "TARGETS")),
    "sasl.mechanism.controller.protocol": "PLAIN",
    "listener.name.controller.sasl.enabled.mechanisms": "PLAIN",
    "listener.name.controller.plain.sasl.jaas.config": f'{_LOGIN} username="broker" password="broker" '
    'user_broker="broker";',
}
_DISK_MB = 160
_WATCH_S = 0.2
_RESTART_S = 1.0
_SETTINGS = {
    "STREAMING_TOPIC_PARTITIONS": str(PARTITIONS),
    "STREAMING_CB_TIMEOUT_S": "3",
}


class ServiceProcess:
    """`tests.chaos.chaos_service` in a process; each start is a new name, with a journal of its own."""

    def __init__(self, folder: Path, env: dict[str, str], tenants: int, rate: float) -> None:
        self.journals = folder / "journals"
        self.journals.mkdir()
        self.log = folder / "service.log"
        self.starts = 0
        self._env = env
        self._load = [str(tenants), str(rate)]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether it is there."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it anew; does not wait."""
        self.quiet()
        self.starts += 1
        name = f"s{self.starts}"
        command = [sys.executable, "-m", "tests.chaos.chaos_service", name]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, str(self.journals / f"{name}.journal"), *self._load],
                cwd=ROOT,
                env=self._env,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def quiet(self) -> None:
        """Have it stage nothing new: its input ends. Can be repeated."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def wait(self, timeout: float) -> int:
        """Wait for its end; its exit status."""
        assert self._process is not None
        return self._process.wait(timeout)


class Rig:
    """All of it, for one namespace. A context manager; `log` is told what happens by itself."""

    def __init__(
        self, namespace: str, folder: Path, log: Callable[[str], None], *, rate: float, tenants: int
    ) -> None:
        self.namespace = namespace
        self.unplanned: list[str] = []
        """Ends of processes that no fault ordered."""
        self.kafka = Cluster(3, doors=["services", "targets"], extra_config=ACLS)
        self.disks = can_mount()
        self._folder = folder
        self._log = log
        self._rate, self._tenants = rate, tenants
        self._stack = ExitStack()
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep_running, name="supervisor")
        self.deleted: dict[str, set[str]] = {}
        """Of each target that was deleted, the ids that stood there."""
        self._held: set[str] = set()
        self._restarts = threading.Lock()

    @contextmanager
    def restarting(self, name: str) -> Iterator[None]:
        """Within the block the supervisor lets the `worker` or the `service` lie, and no other fault restarts any."""
        with self._restarts:
            self._held.add(name)
            yield
            self._held.discard(name)

    def topic(self, name: str) -> str:
        """A topic's full name."""
        return f"{self.namespace}.{name}"

    def start(self) -> None:
        """Start the brokers, then what uses them, and wait until the worker has joined."""
        enter = self._stack.enter_context
        enter(self.kafka)
        create_topic(self.kafka.bootstrap, self.topic("staging"), PARTITIONS, replicas=3)
        self.witness = Witness(self.kafka.bootstrap, self.topic("staging"), "stage-id")
        self.witness.start()
        self._stack.callback(self.witness.stop)
        self.outbox_disk = SmallDisk(self._folder / "service", _DISK_MB)
        self.worker_disk = SmallDisk(self._folder / "worker", _DISK_MB)
        if self.disks:
            enter(self.outbox_disk)
            enter(self.worker_disk)
        doors = self.kafka.doors
        self.worker = WorkerProcess(
            self.kafka.bootstrap,
            self.namespace,
            catalog=CATALOG,
            env=_SETTINGS
            | {
                "STAGEPOST_FAUST_BROKER_SESSION_TIMEOUT": "6",
                "STREAMING_DATA_DIR": str(self.worker_disk.folder / "data"),
            },
            target_bootstrap=doors["targets"].bootstrap,
        )
        enter(self.worker)
        self.worker.wait_ready(90)
        self._start_services(doors["services"].bootstrap)
        self._keeper.start()

    def _start_services(self, bootstrap: str) -> None:
        enter = self._stack.enter_context
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("STREAMING_")}
        env = (
            inherited
            | _SETTINGS
            | {
                "STREAMING_BROKERS": bootstrap,
                "STREAMING_CATALOG": CATALOG,
                "STREAMING_CLOUDEVENTS_SOURCE": "//chaos/service",
                "STREAMING_NAMESPACE": self.namespace,
                "STREAMING_OUTBOX_DIR": str(self.outbox_disk.folder / "outbox"),
            }
        )
        (self._folder / "gunicorn").mkdir()
        self.service = ServiceProcess(self._folder, env, self._tenants, self._rate)
        self.service.start()
        self._stack.callback(self._end_service)
        gunicorn = GunicornService(
            bootstrap, self.namespace, self._folder / "gunicorn", catalog=CATALOG, env=_SETTINGS
        )
        self.gunicorn = enter(gunicorn)
        self.callers = enter(Callers(gunicorn, "chaos.e0", 4))
        self.stranger = enter(Stranger(self.kafka.bootstrap, self.topic("staging")))

    def _keep_running(self) -> None:
        while not self._over.wait(_WATCH_S):
            if "worker" not in self._held and self.worker.exit_status is not None:
                why = f"the worker ended with {self.worker.exit_status}: {self.worker.log_tail(1)}"
                self._restart(why, self.worker.start)
            if "service" not in self._held and not self.service.running:
                why = f"the service ended: {self.service.log.read_text(errors='replace').splitlines()[-1:]}"
                self._restart(why, self.service.start)

    def _restart(self, why: str, start: Callable[[], object]) -> None:
        self.unplanned.append(why)
        self._log(why)
        time.sleep(_RESTART_S)
        start()

    def stop_supervising(self) -> None:
        """From now on what ends stays so."""
        self._over.set()
        if self._keeper.ident is not None:
            self._keeper.join()

    def _end_service(self) -> None:
        if self.service.running:
            self.service.send(signal.SIGKILL)
            self.service.wait(10)
        self.service.quiet()

    def __enter__(self) -> Self:
        """Start."""
        try:
            self.start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything; on a failure, show the service's log first (worker and gunicorn show theirs)."""
        self.stop_supervising()
        if error is not None:
            print(f"--- the service's log\n{self.service.log.read_text(errors='replace')[-20_000:]}")
        self._stack.__exit__(kind, error, trace)
