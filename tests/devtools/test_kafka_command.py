"""The broker tool's command line, with real brokers: addresses, exit statuses, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from devtools.kafka import probe
from tests.devtools.broker_processes import alive, begin, needs_java, pids_of, tool, wait_until

pytestmark = pytest.mark.kafka


@pytest.fixture(autouse=True, scope="module")
def _java() -> None:
    """Skip where this machine can run no broker, or fail there under CI."""
    needs_java()


def test_run_passes_the_address_and_the_exit_status(tmp_path: Path) -> None:
    """`run -- CMD` hands CMD a live broker in both variables and ends as CMD does; no broker is left."""
    script = tmp_path / "client.py"
    script.write_text(
        "import os, sys\n"
        "from devtools.kafka import probe\n"
        "address = os.environ['STREAMING_TEST_BROKERS']\n"
        "assert address == os.environ['STREAMING_BROKERS']\n"
        "assert probe.known_brokers(int(address.rpartition(':')[2])) == {1}\n"
        "print(address)\n"
        "sys.exit(7)\n"
    )
    done = tool("run", "--engine", "jvm", "--", sys.executable, str(script), check=False)
    assert done.returncode == 7, done.stderr
    address = done.stdout.strip()
    assert probe.known_brokers(int(address.rpartition(":")[2])) == set()


def test_run_says_how_a_command_was_killed_or_is_missing() -> None:
    """As a shell does: 128+n for a command that signal n ended, 127 for one that is not there."""
    suicide = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert tool("run", "--", sys.executable, "-c", suicide, check=False).returncode == 128 + signal.SIGKILL
    assert tool("run", "--", "no-such-command", check=False).returncode == 127


def test_two_starts_at_once_get_different_brokers() -> None:
    """`start` under two names at once gives two clusters on their own ports; `stop` ends each for good."""
    names = [f"test-{os.getpid()}-{letter}" for letter in "ab"]
    starts = [begin("start", "--engine", "jvm", "--json", "--name", name) for name in names]
    facts = [json.loads(start.communicate()[0]) for start in starts]
    try:
        ports = [int(fact["bootstrap"].rpartition(":")[2]) for fact in facts]
        assert len(set(ports)) == 2
        assert [probe.known_brokers(port) for port in ports] == [{1}, {1}]
        listed = {
            one["name"]: one["answering"] for one in json.loads(tool("status", "--json", check=False).stdout)
        }
        assert [listed[name] for name in names] == [1, 1]
    finally:
        stops = [tool("stop", "--name", name, check=False).returncode for name in names]
    assert stops == [0, 0]
    assert [probe.known_brokers(port) for port in ports] == [set(), set()]
    wait_until(lambda: not any(alive(fact["pid"]) for fact in facts), "the end of the background processes")
    assert tool("stop", "--name", names[0], check=False).returncode == 1


def test_two_starts_of_one_name_share_one_broker() -> None:
    """`start` under one name, at once or again, starts one cluster and prints its address every time."""
    name = f"test-{os.getpid()}-shared"
    starts = [begin("start", "--engine", "jvm", "--name", name) for _ in range(2)]
    try:
        addresses = {start.communicate()[0].strip() for start in starts}
        addresses.add(tool("start", "--name", name).stdout.strip())
        assert len(addresses) == 1
        assert addresses != {""}
        assert len(pids_of("devtools.kafka hold", name)) == 1
    finally:
        tool("stop", "--name", name)
