"""What the tests of the broker tool share: a look at the processes of this machine, and the tool's commands."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from devtools.kafka import NoBroker
from devtools.kafka.choice import choose_engine

ROOT = Path(__file__).parents[2]
TOOL = [sys.executable, "-m", "devtools.kafka"]
DEADLINE_S = 60.0


def needs_java() -> None:
    """Skip the test where this machine can run no broker, or fail it there under CI."""
    try:
        choose_engine("jvm")
    except NoBroker as absent:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(absent))


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Wait for a fact about another process, with a deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline, f"{what} did not come true within {DEADLINE_S} s"
        time.sleep(0.05)


def pids_of(*marks: str) -> list[int]:
    """Return the ids of the live processes whose command line holds all of `marks`."""
    listing = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,stat=,args="], capture_output=True, text=True, check=True
    )
    rows = (row.split(None, 2) for row in listing.stdout.splitlines())
    return [
        int(pid)
        for pid, state, args in rows
        if not state.startswith("Z") and all(mark in args for mark in marks)
    ]


def java_pids(*marks: str) -> list[int]:
    """Return the ids of the live brokers whose command line holds all of `marks`."""
    guards = pids_of("guard.py", *marks)
    return [pid for pid in pids_of(" kafka.Kafka ", *marks) if pid not in guards]


def alive(pid: int) -> bool:
    """Say whether there is a process of that id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def begin(*arguments: str) -> subprocess.Popen[str]:
    """Begin the command-line tool, without a given broker in its environment."""
    environment = {name: value for name, value in os.environ.items() if name != "STREAMING_TEST_BROKERS"}
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.Popen(
        [*TOOL, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def tool(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command-line tool to its end."""
    process = begin(*arguments)
    out, err = process.communicate()
    assert not check or process.returncode == 0, err
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
