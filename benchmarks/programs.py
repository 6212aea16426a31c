"""Programs under test: started each in a process group of its own, their CPU read from outside, always ended.

Owns: processes, logs, the CPU of a process tree. Must not know: what a program does, Kafka.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["ROOT", "Absent", "Program", "ProgramFailed", "environment", "idle_s", "python", "result_of"]

ROOT = Path(__file__).resolve().parents[1]
_TICK = os.sysconf("SC_CLK_TCK")


class Absent(Exception):
    """A contender cannot be had on this machine; the text says why."""


class ProgramFailed(Exception):
    """A program ended, or did not do its work; the text has the end of its log."""


def environment(**settings: str) -> dict[str, str]:
    """This process's environment without settings of ours, but for these (given without their prefix)."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("STREAMING_")}
    return inherited | {f"STREAMING_{name}": value for name, value in settings.items()}


class Program:
    """A running program. A context manager: at its end the whole process group is gone."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                command, env=dict(env), cwd=ROOT, stdout=out, stderr=out, start_new_session=True
            )

    def __enter__(self) -> Self:
        """It runs since it was made."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it: SIGTERM, and after 15 s SIGKILL."""
        self.resume()
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def cpu(self) -> float:
        """Seconds of CPU, user and system, of the process and all its descendants, dead ones included."""
        return tree_cpu(self._process.pid)

    def rss(self) -> int:
        """Bytes of resident memory of the process itself."""
        status = Path(f"/proc/{self._process.pid}/statm").read_text()
        return int(status.split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def check(self) -> None:
        """Raise `ProgramFailed` unless it runs."""
        if self._process.poll() is not None:
            raise ProgramFailed(f"ended with status {self._process.returncode}:\n{self.tail()}")

    def tail(self) -> str:
        """The end of its log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])

    def pause(self) -> None:
        """Stop it where it stands."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def tree_cpu(root: int) -> float:
    """Seconds of CPU of a process and its descendants."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue  # it ended meanwhile
        parents[int(entry.name)] = int(fields[1])
        ticks[int(entry.name)] = sum(map(int, fields[11:15]))
    members, frontier = {root}, {root}
    while frontier:
        frontier = {pid for pid, parent in parents.items() if parent in frontier} - members
        members |= frontier
    return sum(ticks.get(pid, 0) for pid in members) / _TICK


def idle_s() -> float:
    """Seconds that all cores together have been idle since the machine started."""
    return int(Path("/proc/stat").read_text().split(maxsplit=5)[4]) / _TICK


def result_of(
    command: Sequence[str], env: Mapping[str, str], *, feed: bytes = b"", limit_s: float = 120
) -> dict[str, Any]:
    """Run a program that prints its figures as one JSON object, last; it is killed after `limit_s`.

    `feed` is its standard input.
    """
    process = subprocess.Popen(
        command,
        env=dict(env),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    killer = threading.Timer(limit_s, os.killpg, (process.pid, signal.SIGKILL))
    killer.start()
    try:
        out, err = process.communicate(feed)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    finally:
        killer.cancel()
    if process.returncode:
        end = "\n".join(err.decode(errors="replace").splitlines()[-15:])
        raise ProgramFailed(f"{' '.join(command)} ended with status {process.returncode}:\n{end}")
    figures: dict[str, Any] = json.loads(out.splitlines()[-1])
    return figures


def python(module: str, *arguments: str) -> list[str]:
    """The command of a module of ours."""
    return [sys.executable, "-m", module, *arguments]
