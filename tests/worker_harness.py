"""A real worker in a process of its own.

Owns: its command, its settings, its folder and port. Must not know: what any test is about.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.kafka_client import wait_until
from tests.process_harness import ROOT, LoggedProcess

__all__ = ["WorkerProcess"]


class WorkerProcess(LoggedProcess):
    """`faust -A pipeline -L uvloop worker -l LEVEL` in a process group, port and data folder of its own.

    `catalog`, `env`: settings, the latter by full variable name, over the ones made here. `target_bootstrap`:
    another cluster for the targets. `faust`: how that command is called; `cwd`: where; `level`: of its log. A context
    manager that starts on entry and leaves nothing behind.
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
        level: str = "info",
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="stagepost-worker-"))
        self.web_port = _free_port()
        settings = {
            "STREAMING_BROKERS": bootstrap,
            "STREAMING_CATALOG": catalog,
            "STREAMING_CLOUDEVENTS_SOURCE": "/tests/worker",
            "STREAMING_NAMESPACE": namespace,
            "STREAMING_DATA_DIR": str(self.folder / "data"),
            "STREAMING_WEB_PORT": str(self.web_port),
        }
        if target_bootstrap is not None:
            settings["STREAMING_TARGET_BROKERS"] = target_bootstrap
        command = [*faust, "-A", "pipeline", "-L", "uvloop", "worker", "-l", level]
        super().__init__(command, self.folder / "worker.log", {**settings, **(env or {})}, cwd=cwd)

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

    def kill(self) -> None:
        """kill -9 to the whole group, as a crash; waits for the end."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the worker."""
        os.kill(self.pid, number)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill what is left; on a failure, show the log first. Removes its folder."""
        super().__exit__(kind, error, trace)
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
