"""The parts of the broker tool that need no broker: settings, choices, locks, and what it says when it cannot."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from devtools.kafka import NoBroker, __main__, brokers, choice, jars
from devtools.kafka.config import Address, Options, free_addresses, new_cluster_id, properties
from devtools.kafka.node import telling_lines
from devtools.kafka.scratch import Scratch
from tests.devtools.broker_processes import ROOT, alive, wait_until

GUARD = ROOT / "devtools" / "kafka" / "guard.py"


def parsed(text: str) -> dict[str, str]:
    """Read a properties file of one `name=value` a line."""
    return dict(line.split("=", 1) for line in text.splitlines())


def program(folder: Path, name: str, script: str) -> None:
    """Put a shell script into a folder for programs."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_one_node_needs_no_second() -> None:
    """Internal topics of a lone broker have one replica, and it is enough to acknowledge."""
    one = Address(1, 20_000, 20_001)
    settings = parsed(properties(one, [one], "/data", {}))
    assert settings["offsets.topic.replication.factor"] == "1"
    assert settings["transaction.state.log.min.isr"] == "1"
    assert settings["min.insync.replicas"] == "1"
    assert settings["auto.create.topics.enable"] == "false"
    assert settings["group.initial.rebalance.delay.ms"] == "0"


def test_three_nodes_keep_three_copies_and_two_in_sync() -> None:
    """Of three brokers any one may be lost: three replicas, two in sync, a quorum of three."""
    three = [Address(n, 20_000 + n, 21_000 + n) for n in (1, 2, 3)]
    settings = parsed(properties(three[1], three, "/data", {}))
    assert settings["node.id"] == "2"
    assert settings["controller.quorum.voters"] == "1@127.0.0.1:21001,2@127.0.0.1:21002,3@127.0.0.1:21003"
    for name in ("offsets.topic.replication.factor", "transaction.state.log.replication.factor"):
        assert settings[name] == "3"
    for name in ("min.insync.replicas", "transaction.state.log.min.isr"):
        assert settings[name] == "2"


def test_extra_settings_win() -> None:
    """What the user of a cluster sets is what the broker gets, also against the tool's own choice."""
    one = Address(1, 20_000, 20_001)
    settings = parsed(
        properties(one, [one], "/data", {"listeners": "a"}, {"listeners": "b", "compression.type": "lz4"})
    )
    assert (settings["listeners"], settings["compression.type"]) == ("b", "lz4")


def test_no_cluster_id_looks_like_an_option() -> None:
    """One random id in 64 would begin with a hyphen, and Kafka's tools would refuse it."""
    ids = {new_cluster_id() for _ in range(2000)}
    assert len(ids) == 2000
    assert {len(text) for text in ids} == {22}
    assert not any(text.startswith("-") for text in ids)


def test_only_quick_starts_leave_the_second_compiler_out() -> None:
    """Benchmarks can have the JVM's full compiler."""
    assert "-XX:TieredStopAtLevel=1" in Options().jvm
    assert "-XX:TieredStopAtLevel=1" not in Options(quick_start=False).jvm


def test_ports_are_free_and_not_those_of_outgoing_connections() -> None:
    """Chosen ports can be bound, differ, and lie where the kernel places no client that retries."""
    ports = [port for a in free_addresses(3) for port in (a.port, a.controller)]
    assert len(set(ports)) == 6
    for port in ports:
        socket.create_server(("127.0.0.1", port)).close()
    with socket.socket() as client, socket.create_server(("127.0.0.1", 0)) as server:
        client.connect(server.getsockname())
        assert max(ports) < 32_768 <= client.getsockname()[1]


def test_the_end_of_a_log_is_shown_without_its_routine() -> None:
    """INFO entries go, with the lines that follow them; errors stay, with their stack traces."""
    log = "\n".join(
        [
            "10:00:00.000 [main] INFO kafka.Kafka - values:",
            "\tlog.dirs = x",
            "10:00:00.001 [main] ERROR kafka.Kafka - cannot bind",
            "\tat kafka.Kafka.main",
            "10:00:00.002 [main] INFO kafka.Kafka - shut down",
        ]
    )
    assert telling_lines(log) == [
        "10:00:00.001 [main] ERROR kafka.Kafka - cannot bind",
        "\tat kafka.Kafka.main",
    ]
    assert telling_lines("only\nthis") == ["only", "this"]


def test_given_brokers_are_used_and_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `STREAMING_TEST_BROKERS` nothing is started, and nothing is looked for."""
    monkeypatch.setenv("PATH", "")
    with brokers({"STREAMING_TEST_BROKERS": " elsewhere:9092 "}) as given:
        assert given == choice.GivenBrokers("elsewhere:9092")
    assert choice.given({"STREAMING_TEST_BROKERS": ""}) is None


def test_run_and_start_use_given_brokers(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The command line hands on a given address, to a command and to whoever asks for a start."""
    monkeypatch.setenv("STREAMING_TEST_BROKERS", "elsewhere:9092")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert __main__.main(["run", "--", "sh", "-c", 'echo "$STREAMING_BROKERS"; exit 5']) == 5
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert __main__.main(["start", "--json"]) == 0
    assert capfd.readouterr().out == 'elsewhere:9092\n{"bootstrap": "elsewhere:9092"}\n'


def test_a_missing_engine_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no broker can be had, the error says of each way what to install or to start."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    with pytest.raises(NoBroker, match=r"start Docker; 'java' does not run; install a Java 17"):
        choice.choose_engine()


def test_an_old_java_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Java before 17 is refused with what to install; 17 and later are taken, with their full version."""
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    program(tmp_path / "bin", "java", "echo 'openjdk version \"11.0.2\"' >&2")
    with pytest.raises(NoBroker, match=r"is Java 11\.0\.2; install Java 17 or newer"):
        jars.find_java()
    program(tmp_path / "bin", "java", "echo 'openjdk version \"21.0.1\" 2023' >&2")
    assert jars.find_java() == jars.Java(str(tmp_path / "bin" / "java"), "21.0.1")


def test_a_missing_or_failing_maven_leaves_no_half_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without Maven, or when it fails halfway, the error says so and the next start tries again."""
    tools, cache = tmp_path / "bin", tmp_path / "cache"
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(NoBroker, match="install Apache Maven"):
        jars.resolve(cache)
    program(tools, "mvn", "echo no route to the repository; exit 1")
    with pytest.raises(NoBroker, match="no route to the repository"):
        jars.resolve(cache)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_of_two_processes_one_fetches_the_jars(tmp_path: Path) -> None:
    """Two first starts at once call Maven once, and both get the one full folder."""
    calls, go, cache = tmp_path / "calls", tmp_path / "go", tmp_path / "cache"
    fetch = (
        f"echo call >> {calls}\n"
        f"while [ ! -e {go} ]; do sleep 0.02; done\n"
        'for word in "$@"; do case "$word" in -DoutputDirectory=*) folder="${word#*=}"; esac; done\n'
        'mkdir "$folder"; touch "$folder/kafka_2.13.jar"'
    )
    program(tmp_path / "bin", "mvn", fetch)
    script = (
        "import pathlib, sys; from devtools.kafka import jars; print('ready', flush=True)\n"
        "print(jars.resolve(pathlib.Path(sys.argv[1])))"
    )
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(cache)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    wait_until(calls.exists, "the call of Maven")
    go.touch()
    folders = {process.communicate()[0].strip() for process in both}
    assert calls.read_text().splitlines() == ["call"]
    (folder,) = folders
    assert [path.name for path in Path(folder).iterdir()] == ["kafka_2.13.jar"]


def test_a_sweep_spares_folders_in_use(tmp_path: Path) -> None:
    """A start removes the folders of crashed programs, and only those."""
    used = Scratch(tmp_path)
    orphan = tmp_path / "kafka-orphan"
    orphan.mkdir()
    (orphan / "data").write_text("left over")
    fresh = Scratch(tmp_path)
    assert not orphan.exists()
    assert used.path.is_dir()
    fresh.remove()
    used.remove()
    assert list(tmp_path.glob("kafka-*")) == []


@pytest.mark.parametrize("forks", [False, True])
def test_a_guard_ends_its_child_with_its_parent(forks: bool, tmp_path: Path) -> None:
    """The child dies with its starter, also where a process that the starter forked still holds the pipe."""
    script = (
        "import os, signal, subprocess, sys\n"
        "guard = subprocess.Popen([sys.executable, sys.argv[1], os.devnull, 'sleep', '1000'],\n"
        "                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)\n"
        "child, fork = guard.stdout.readline().strip(), 0\n"
        "if sys.argv[2] == 'True':\n"
        "    fork = os.fork()\n"
        "    if fork == 0: signal.pause()\n"
        "print(child, fork, flush=True); sys.stdin.read()"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", script, str(GUARD), str(forks)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with starter:
        assert starter.stdout is not None
        child, fork = (int(pid) for pid in starter.stdout.readline().split())
        os.kill(child, 0)
        starter.kill()
        try:
            wait_until(lambda: not alive(child), "the end of the child")
        finally:
            if fork:
                os.kill(fork, signal.SIGKILL)
