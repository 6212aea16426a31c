"""Brokers that go on after the command that started them: `start`, `status` and `stop`.

Owns: the background process that holds such a cluster, and the file that says where it is.
Must not know: how brokers are run.

The background process holds the lock of its name for as long as it lives, and the brokers die with it; so a
file whose lock is free is left over from a crash, and its process id is not to be trusted.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from devtools.kafka.choice import EngineName
from devtools.kafka.cluster import Cluster
from devtools.kafka.errors import BrokerFailed
from devtools.kafka.jars import kafka_version
from devtools.kafka.scratch import RUN

_PROJECT = Path(__file__).parents[2]
_POLL_S = 0.05
_STOP_S = 30.0
_TAIL_LINES = 30


@dataclass(frozen=True, slots=True)
class Running:
    """A cluster in the background: its name, its address, what runs it, and the process that holds it."""

    name: str
    bootstrap: str
    nodes: int
    engine: str
    kafka: str
    pid: int


def start(name: str, nodes: int, engine: EngineName, root: Path = RUN) -> Running:
    """Return the cluster of that name, starting it first unless it runs (blocks until it answers).

    Raises `BrokerFailed` with what the background process said if it cannot start.
    """
    there = find(name, root)
    if there is not None:
        return there
    root.mkdir(parents=True, exist_ok=True)
    log = _log(name, root)
    with log.open("a") as out:
        holder = subprocess.Popen(
            [sys.executable, "-m", "devtools.kafka", "hold", name, str(nodes), engine, str(root.absolute())],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=_PROJECT,
            start_new_session=True,
        )
    try:
        while (there := find(name, root)) is None:
            _expect_alive(holder, name, log)
            time.sleep(_POLL_S)
    except BaseException:
        _end_process(holder)
        raise
    if there.pid != holder.pid:  # another start of the same name was quicker
        _end_process(holder)
    return there


def find(name: str, root: Path = RUN) -> Running | None:
    """Return the running cluster of that name, or nothing; what a crashed one left is removed."""
    state, path = _state(name, root), _lock(name, root)
    try:
        with path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            state.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        with suppress(FileNotFoundError):  # it is just starting, or just ending
            return Running(**json.loads(state.read_text()))
    return None


def running(root: Path = RUN) -> list[Running]:
    """Return all clusters that run in the background, by name."""
    found = (find(file.stem, root) for file in sorted(root.glob("*.json")))
    return [one for one in found if one is not None]


def stop(name: str, root: Path = RUN) -> bool:
    """End the cluster of that name and wait until it is gone; say whether there was one."""
    there = find(name, root)
    if there is None:
        return False
    os.kill(there.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_S
    while find(name, root) is not None:
        if time.monotonic() > deadline:
            os.kill(there.pid, signal.SIGKILL)  # the brokers die with it
        time.sleep(_POLL_S)
    _log(name, root).unlink(missing_ok=True)
    return True


def hold(name: str, nodes: int, engine: EngineName, root: Path) -> None:
    """Be the background process: run a cluster until SIGTERM or SIGINT. Waits while the name is taken."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)
    state = _state(name, root)
    with _held(_lock(name, root)):
        try:
            with Cluster(nodes, engine=engine, run_root=root) as cluster:
                there = Running(name, cluster.bootstrap, nodes, cluster.engine, kafka_version(), os.getpid())
                fresh = state.with_suffix(".fresh")
                fresh.write_text(json.dumps(asdict(there)))
                fresh.rename(state)
                while True:
                    signal.pause()
        finally:
            state.unlink(missing_ok=True)


def _expect_alive(holder: subprocess.Popen[bytes], name: str, log: Path) -> None:
    if holder.poll() is not None:
        lines = log.read_text(errors="replace").splitlines()
        raise BrokerFailed(f"the cluster {name!r} did not start", "\n".join(lines[-_TAIL_LINES:]))


def _exit(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def _end_process(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait()


def _state(name: str, root: Path) -> Path:
    return root / f"{name}.json"


def _log(name: str, root: Path) -> Path:
    return root / f"{name}.log"


def _lock(name: str, root: Path) -> Path:
    return root / f"{name}.lock"


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold the lock file `path` within the block, waiting for it; the file is removed in the end."""
    while True:
        with path.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Whoever held it before may have removed the file: then another may lock a new one.
            if not path.exists() or not os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return
