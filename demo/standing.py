"""A broker and a worker that go on after the command that started them: `up` and `down`.

Owns: the worker in the background, and the file that says where everything is. Must not know: what is staged.

The worker holds the lock of the folder for as long as it lives. So a folder whose lock is free is left over,
and its process id is not to be trusted.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final

from demo.programs import PROJECT, ProgramFailed, environment
from demo.progress import say
from demo.run import WORKER, Run, account_of, free_port, stage_and_watch, worker_command, worker_settings
from devtools.kafka import service
from devtools.kafka.choice import given

__all__ = ["FOLDER", "down", "up"]

FOLDER: Final = PROJECT / ".cache" / "demo"
_BROKER: Final = "demo"
_LOCK: Final = "lock"
_STATE: Final = "state.json"
_OUR_BROKER: Final = "our-broker"
_END_S: Final = 30.0
_POLL_S: Final = 0.05


class _Worker:
    """A worker that outlives this process, unless it is ended. It inherits the lock."""

    def __init__(self, run: Run, web_port: int, token: str, lock: IO[str]) -> None:
        self._log = run.log(WORKER)
        tokens = f"demo:{hashlib.sha256(token.encode()).hexdigest()}"
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                worker_command(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=PROJECT,
                env=environment(worker_settings(run, web_port) | {"STREAMING_ADMIN_TOKENS": tokens}),
                pass_fds=[lock.fileno()],
                start_new_session=True,
            )
        self.pid = self._process.pid

    def check(self) -> None:
        """Raise `ProgramFailed` unless it runs."""
        status = self._process.poll()
        if status is not None:
            raise ProgramFailed(WORKER, status, self._log)

    def end(self) -> None:
        """End it and wait."""
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def up(count: int, folder: Path = FOLDER) -> int:
    """Start broker and worker in the background, stage, account; end both again only if that fails.

    Where they run already, say so and do nothing. Returns the exit status.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a") as lock:
        if not _is_free(lock):
            is_up = (folder / _STATE).exists()
            say("it runs already:" if is_up else "it is being started already")
            if is_up:
                _tell(json.loads((folder / _STATE).read_text()))
            return 0
        status = 1
        try:
            status = _start(count, folder, lock)
        finally:
            if status:
                _remove(folder)
    return status


def down(folder: Path = FOLDER) -> int:
    """End what `up` left running. Returns the exit status: 1 where nothing ran."""
    if not (folder / _STATE).exists():
        say("nothing is running")
        return 1
    pid = int(json.loads((folder / _STATE).read_text())["worker"])
    number = signal.SIGTERM
    deadline = time.monotonic() + _END_S
    with (folder / _LOCK).open("a") as lock:
        while not _is_free(lock):
            if number is signal.SIGTERM or time.monotonic() > deadline:
                os.kill(pid, number)
                number = signal.SIGKILL
            time.sleep(_POLL_S)
    _remove(folder)
    return 0


def _start(count: int, folder: Path, lock: IO[str]) -> int:
    start = time.monotonic()
    servers = _brokers(folder)
    run = Run.new(servers, folder)
    say(f"{time.monotonic() - start:5.1f} s   broker at {servers}, namespace {run.namespace}")
    web_port = free_port()
    token = secrets.token_urlsafe(24)
    worker = _Worker(run, web_port, token, lock)
    status = 1
    try:
        status = account_of(run, stage_and_watch(run, count, start, worker))
    finally:
        if status:
            worker.end()
    state = {
        "servers": servers,
        "namespace": run.namespace,
        "web_port": web_port,
        "worker": worker.pid,
        "token": token,
    }
    (folder / _STATE).touch(0o600)
    (folder / _STATE).write_text(json.dumps(state))
    say("\nleft running:")
    _tell(state)
    return status


def _tell(state: Mapping[str, object]) -> None:
    say(f"broker {state['servers']}, worker {state['worker']}; `make down` ends both")
    say(
        f"pages at http://127.0.0.1:{state['web_port']}/; to change something there log in with {state['token']}"
    )


def _brokers(folder: Path) -> str:
    """The address of brokers that are given, else of one that is started and marked as ours to stop."""
    there = given()
    if there is not None:
        return there.bootstrap
    (folder / _OUR_BROKER).touch()
    return service.start(_BROKER, 1, "auto").bootstrap


def _remove(folder: Path) -> None:
    if (folder / _OUR_BROKER).exists():
        service.stop(_BROKER)
    shutil.rmtree(folder)


def _is_free(lock: IO[str]) -> bool:
    """Take the lock if nobody has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
