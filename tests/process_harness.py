"""A program of ours in a process of its own, with its output in a file.

Owns: starting it, its environment without settings of the caller's, its log, its end. Must not know: which program.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["ROOT", "LoggedProcess"]

ROOT = Path(__file__).resolve().parent.parent
_TAIL_LINES = 60


class LoggedProcess:
    """A process whose output goes to `log`. A context manager: starts on entry, kills on exit.

    `command` is run in `cwd`; `env`: its settings by full variable name, over an environment that has none.
    """

    def __init__(
        self, command: Sequence[str], log: Path, env: Mapping[str, str], *, cwd: Path = ROOT
    ) -> None:
        self.log = log
        self._command = command
        self._cwd = cwd
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("STREAMING_")}
        self._env = {**inherited, **env}
        self._process: subprocess.Popen[bytes] | None = None
        self._seen = 0

    @property
    def pid(self) -> int:
        """Process id, also the id of its process group."""
        return self._started().pid

    @property
    def exit_status(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._started().poll()

    def start(self) -> Self:
        """Start the process; does not wait. May be called again after its end: same settings, same data."""
        assert self._process is None or self.exit_status is not None, f"it runs already: {self._command}"
        self._seen = len(self._whole_log())
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._cwd,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def terminate(self, timeout: float = 60.0) -> int:
        """SIGTERM, as a deploy does; waits for the end and returns the exit status."""
        self._started().terminate()
        return self.wait(timeout)

    def wait(self, timeout: float = 60.0) -> int:
        """Wait for the end of the process and return the exit status."""
        try:
            return self._started().wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it has not ended in {timeout:g} s\n{self.log_tail()}") from None

    def kill(self) -> None:
        """kill -9 to it, as a crash; waits for the end. Nothing where it has ended."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def log_text(self) -> str:
        """What it has logged since its last start."""
        return self._whole_log()[self._seen :]

    def log_tail(self, lines: int = _TAIL_LINES) -> str:
        """The last lines of the log, over all starts."""
        return "\n".join(self._whole_log().splitlines()[-lines:])

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill what is left; on a failure, show the log first."""
        if error is not None:
            print(f"--- the end of {self.log.name}\n{self.log_tail()}")
        self.kill()

    def _started(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"it was not started: {self._command}"
        return self._process

    def _whole_log(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""
