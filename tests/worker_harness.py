"""A real worker in a process of its own.

Owns: starting and ending it, its settings, its log. Must not know: what any test is about. What a test asks the
broker it asks through `tests.kafka_client`, which can be imported from here as well.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.kafka_client import (
    OutRecord,
    Record,
    committed,
    create_topic,
    partition_count,
    produce,
    read_all,
    record_count,
    wait_until,
)

__all__ = [
    "OutRecord",
    "Record",
    "WorkerProcess",
    "committed",
    "create_topic",
    "partition_count",
    "produce",
    "read_all",
    "record_count",
    "wait_until",
]

ROOT = Path(__file__).resolve().parent.parent
_TAIL_LINES = 60


class WorkerProcess:
    """`faust -A pipeline -L uvloop worker -l info` in a process group, port and data folder of its own.

    `catalog`, `env`: settings, the latter by full variable name, over the ones made here. `target_bootstrap`:
    another cluster for the targets. `faust`: how that command is called; `cwd`: where. A context manager that
    starts on entry and leaves nothing behind.
    """

    def __init__(
        self,
        bootstrap: str,
        namespace: str,
        *,
        catalog: str = "catalog.examples.flights",
        env: Mapping[str, str] | None = None,
        target_bootstrap: str | None = None,
        faust: Sequence[str] = (sys.executable, "-m", "faust"),
        cwd: Path = ROOT,
    ) -> None:
        self._faust = faust
        self._cwd = cwd
        self.folder = Path(tempfile.mkdtemp(prefix="stagepost-worker-"))
        self.log = self.folder / "worker.log"
        self.web_port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._seen = 0
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("STREAMING_")}
        self._env = inherited | {
            "STREAMING_BROKERS": bootstrap,
            "STREAMING_CATALOG": catalog,
            "STREAMING_CLOUDEVENTS_SOURCE": "/tests/worker",
            "STREAMING_NAMESPACE": namespace,
            "STREAMING_DATA_DIR": str(self.folder / "data"),
            "STREAMING_WEB_PORT": str(self.web_port),
        }
        if target_bootstrap is not None:
            self._env["STREAMING_TARGET_BROKERS"] = target_bootstrap
        self._env.update(env or {})

    @property
    def pid(self) -> int:
        """Process id, also the id of its process group."""
        assert self._process is not None, "the worker was not started"
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        assert self._process is not None, "the worker was not started"
        return self._process.poll()

    def start(self) -> Self:
        """Start the process; does not wait. May be called again after its end: same settings, same data."""
        assert self._process is None or self.exit_status is not None, "the worker runs already"
        self._seen = len(self._log_text())
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._faust, "-A", "pipeline", "-L", "uvloop", "worker", "-l", "info"],
                cwd=self._cwd,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def wait_ready(self, timeout: float = 60.0) -> Self:
        """Wait until it has joined its group and reads; fails with the end of its log."""
        return self.wait_log("Worker ready", timeout)

    def wait_log(self, text: str, timeout: float = 30.0) -> Self:
        """Wait until a text stands in the log of this start; fails where the process ends without it."""

        def there() -> bool:
            ended = self.exit_status is not None  # asked first: what it wrote before its end counts
            if text in self.log_text():
                return True
            assert not ended, f"the worker ended with {self.exit_status}:\n{self.log_tail()}"
            return False

        try:
            wait_until(there, timeout, f"{text!r} in the worker's log")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log_tail()}") from None
        return self

    def terminate(self, timeout: float = 60.0) -> int:
        """SIGTERM, as a deploy does; waits for the end and returns the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> None:
        """SIGKILL to the whole group, as a crash; waits for the end."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the worker."""
        os.kill(self.pid, number)

    def wait(self, timeout: float = 60.0) -> int:
        """Wait for the end of the process and return the exit status."""
        assert self._process is not None, "the worker was not started"
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the worker has not ended in {timeout:g} s\n{self.log_tail()}") from None

    def log_text(self) -> str:
        """What it has logged since its last start."""
        return self._log_text()[self._seen :]

    def log_tail(self, lines: int = _TAIL_LINES) -> str:
        """The last lines of the log, over all starts."""
        return "\n".join(self._log_text().splitlines()[-lines:])

    def _log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill what is left; on a failure, show the log first."""
        if error is not None:
            print(f"--- the worker's log\n{self.log_tail()}")
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def _free_port() -> int:
    # Below the range of outgoing connections, so that none of them takes it before the worker does.
    while True:
        port = 10_000 + int.from_bytes(os.urandom(2)) % 5_000
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
