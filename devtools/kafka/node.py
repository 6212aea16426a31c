"""One broker process on the JVM: started under a guard, signalled, started again.

Owns: the process and its log. Must not know: the other nodes, or how ports and settings are chosen.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from devtools.kafka import probe
from devtools.kafka.config import Address
from devtools.kafka.errors import BrokerFailed

_GUARD = str(Path(__file__).with_name("guard.py"))
_POLL_S = 0.05
_TAIL_LINES = 30


class Node:
    """One broker. `address` and `folder` never change; `pid` is that of the Java process while it runs."""

    def __init__(self, address: Address, folder: Path, java: Sequence[str], lock_fd: int) -> None:
        self.address = address
        self.folder = folder
        self.pid: int | None = None
        self._java = java
        self._lock_fd = lock_fd
        self._guard: subprocess.Popen[str] | None = None

    @property
    def bootstrap(self) -> str:
        """`host:port` of this node alone."""
        return f"127.0.0.1:{self.address.port}"

    @property
    def log(self) -> Path:
        """The file with the broker's output, of all its starts."""
        return self.folder / "broker.log"

    @property
    def running(self) -> bool:
        """Whether the process is there; also true while it is paused or still starting."""
        return self._guard is not None and self._guard.poll() is None

    def start(self) -> None:
        """Start the process; does not wait until it answers. Nothing happens if it runs already."""
        if self.running:
            return
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", _GUARD, str(self.log), *self._java],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            pass_fds=[self._lock_fd],
            start_new_session=True,  # Ctrl-C in a terminal is for the caller, who then stops us in order
        )
        assert self._guard.stdout is not None  # noqa: S101 - for mypy: it is a pipe
        self.pid = int(self._guard.stdout.readline() or 0) or None

    def kill(self) -> None:
        """Kill the process at once (SIGKILL), as a crash would, and wait until it is gone."""
        self._end(signal.SIGKILL, 10.0)

    def stop(self, timeout_s: float = 60.0) -> None:
        """Ask the process to shut down in order (SIGTERM) and wait, else raise `BrokerFailed`."""
        self.resume()
        self._end(signal.SIGTERM, timeout_s)

    def pause(self) -> None:
        """Freeze the process (SIGSTOP): connections stay open, nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def restart(self, timeout_s: float = 60.0) -> None:
        """Stop in order if running, start on the same port with the same data, wait until it answers."""
        self.stop(timeout_s)
        self.start()
        self.wait_ready(timeout_s=timeout_s)

    def wait_ready(self, expected: frozenset[int] = frozenset(), timeout_s: float = 60.0) -> None:
        """Wait until this broker answers and knows itself and the `expected` node ids.

        Raises `BrokerFailed` with the end of the log if it ends, or is not ready within `timeout_s`.
        """
        wanted = expected | {self.address.node_id}
        deadline = time.monotonic() + timeout_s
        while not wanted <= probe.known_brokers(self.address.port):
            if not self.running:
                raise self._failed("has ended")
            if time.monotonic() > deadline:
                raise self._failed(f"was not ready within {timeout_s:g} s")
            time.sleep(_POLL_S)

    def _signal(self, number: signal.Signals) -> None:
        if self.running and self.pid is not None:
            os.kill(self.pid, number)

    def _end(self, number: signal.Signals, timeout_s: float) -> None:
        if self._guard is None:
            return
        self._signal(number)
        try:
            self._guard.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise self._failed(f"did not end within {timeout_s:g} s of {number.name}") from None
        for pipe in (self._guard.stdin, self._guard.stdout):
            if pipe is not None:
                pipe.close()
        self._guard = None
        self.pid = None

    def _failed(self, what: str) -> BrokerFailed:
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        return BrokerFailed(
            f"broker {self.address.node_id} {what}", self.log, "\n".join(lines[-_TAIL_LINES:])
        )
