"""The programs of a run, each a process of its own: started with a clean environment, ended whatever happens.

Owns: processes and their logs. Must not know: what the programs do.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from catalog.errors import StagepostError
from devtools.kafka import guard

__all__ = ["PROJECT", "Program", "ProgramFailed", "environment", "tail"]

PROJECT: Final = Path(__file__).resolve().parents[1]
_END_S: Final = 20.0
_TAIL_LINES: Final = 30


class ProgramFailed(StagepostError):
    """A program of the demonstration ended when it should not have, or with an error; `tail` ends its log."""

    def __init__(self, name: str, status: int, log: Path) -> None:
        self.name = name
        self.status = status
        self.tail = tail(log)
        super().__init__(f"{name} ended with status {status}; the end of its log says why:\n{self.tail}")


def tail(log: Path) -> str:
    """Return the last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with these settings of ours and no others."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("STREAMING_")}
    return inherited | {"PYTHONUNBUFFERED": "1"} | dict(settings)


class Program:
    """A program under a guard, which ends it when this process is gone. A context manager that starts it.

    `name` stands in messages; the output goes to `log`.
    """

    def __init__(self, name: str, command: Sequence[str], settings: Mapping[str, str], log: Path) -> None:
        self.name = name
        self._command = command
        self._settings = settings
        self._log = log

    def __enter__(self) -> Self:
        """Start it."""
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(guard.__file__)), str(self._log), *self._command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
            env=environment(self._settings),
            start_new_session=True,  # Ctrl-C in a terminal is for this process, which ends the others in order
        )
        assert self._guard.stdout is not None
        self._pid = int(self._guard.stdout.readline())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ask it to end, as a deploy would; kill it if it does not within 20 s."""
        if self._guard.poll() is None:
            os.kill(self._pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):  # the guard kills it when its pipe is closed
            self._guard.wait(_END_S)
        assert self._guard.stdin is not None
        assert self._guard.stdout is not None
        self._guard.stdin.close()
        self._guard.stdout.close()
        self._guard.wait()

    @property
    def done(self) -> bool:
        """Whether it has ended well. Raises `ProgramFailed` where it ended otherwise."""
        status = self._guard.poll()
        if status:
            raise ProgramFailed(self.name, status, self._log)
        return status == 0

    def check(self) -> None:
        """Raise `ProgramFailed` unless it runs."""
        status = self._guard.poll()
        if status is not None:
            raise ProgramFailed(self.name, status, self._log)
