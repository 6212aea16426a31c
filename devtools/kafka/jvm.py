"""Brokers as Java processes of this machine, each under a guard (guard.py).

Owns: the command lines, the processes, formatting, the class archive. Must not know: ports, other engines.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from devtools.kafka import jars
from devtools.kafka.config import Address, Options, free_addresses, new_cluster_id, properties
from devtools.kafka.errors import BrokerFailed
from devtools.kafka.node import Node
from devtools.kafka.scratch import Scratch

_LOG = (
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
)
_GUARD = str(Path(__file__).with_name("guard.py"))


class JvmNode(Node):
    """One Java process. `pid` is its process id while it runs; its log is `folder / "broker.log"`."""

    def __init__(self, address: Address, folder: Path, command: Sequence[str], lock_fd: int) -> None:
        super().__init__(address)
        self.folder = folder
        self.pid: int | None = None
        self._command = command
        self._lock_fd = lock_fd
        self._guard: subprocess.Popen[str] | None = None

    @property
    def running(self) -> bool:
        """Whether the process is there; also true while it is paused or still starting."""
        return self._guard is not None and self._guard.poll() is None

    def start(self) -> None:
        """Start the process; does not wait until it answers. Nothing happens if it runs already."""
        if self.running:
            return
        self._forget()
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", _GUARD, str(self.folder / "broker.log"), *self._command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            pass_fds=[self._lock_fd],
            start_new_session=True,  # Ctrl-C in a terminal is for our caller, who then ends us in order
        )
        assert self._guard.stdout is not None
        self.pid = int(self._guard.stdout.readline() or 0) or None

    def kill(self) -> None:
        """Kill the process (SIGKILL), as a crash would, and wait until it is gone."""
        self._end(signal.SIGKILL, 10.0)

    def stop(self, timeout_s: float = 60.0) -> None:
        """Ask the process to shut down in order (SIGTERM) and wait; raises `BrokerFailed` if it does not."""
        self.resume()
        self._end(signal.SIGTERM, timeout_s)

    def pause(self) -> None:
        """Freeze the process (SIGSTOP): connections stay open, nothing answers."""
        self._signal(signal.SIGSTOP)
        while (
            self.running and not self._is_frozen()
        ):  # a thread on another processor answers for a moment yet
            time.sleep(0.001)

    def resume(self) -> None:
        """Let a paused process go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def log_text(self) -> str:
        """Return what the broker has logged, over all its starts."""
        try:
            return (self.folder / "broker.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def _is_frozen(self) -> bool:
        states = [
            stat.read_text().rpartition(")")[2].split()[0]
            for stat in Path(f"/proc/{self.pid}/task").glob("*/stat")
        ]
        return all(state == "T" for state in states)

    def _signal(self, number: signal.Signals) -> None:
        # The guard reaps the process and then ends itself: while it is there, so is the process id.
        if self.running and self.pid is not None:
            os.kill(self.pid, number)

    def _end(self, number: signal.Signals, timeout_s: float) -> None:
        self._signal(number)
        try:
            if self._guard is not None:
                self._guard.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise self.failed(f"did not end within {timeout_s:g} s of {number.name}") from None
        self._forget()

    def _forget(self) -> None:
        if self._guard is not None:
            for pipe in (self._guard.stdin, self._guard.stdout):
                if pipe is not None:
                    pipe.close()
        self._guard = None
        self.pid = None


class JvmEngine:
    """Runs brokers with `java` from jars that Maven fetched; the first use takes some 20 s more."""

    name = "jvm"

    def __init__(self, cache: Path = jars.CACHE) -> None:
        """Find Java and the jars, fetching these if need be (blocks). Raises `NoBroker`."""
        self._java = jars.find_java()
        self._libs = jars.resolve(cache)
        self._nodes: list[JvmNode] = []

    def create(self, addresses: Sequence[Address], options: Options, scratch: Scratch) -> tuple[JvmNode, ...]:
        """Prepare a node for each address: its folder, its settings, its formatted data."""
        archive = self._class_archive()
        cluster_id = new_cluster_id()
        for address in addresses:
            folder = scratch.path / f"node-{address.node_id}"
            folder.mkdir()
            settings = folder / "server.properties"
            settings.write_text(properties(address, addresses, str(folder / "data"), options.extra_config))
            java = [*self._program(options), f"-XX:SharedArchiveFile={archive}"]
            _format(java, settings, cluster_id)
            command = [*java, "kafka.Kafka", str(settings)]
            self._nodes.append(JvmNode(address, folder, command, scratch.lock_fd))
        return tuple(self._nodes)

    def close(self) -> None:
        """Kill every node; their folders go with the scratch folder."""
        for node in self._nodes:
            node.kill()
        self._nodes.clear()

    def _program(self, options: Options) -> list[str]:
        heap = f"-Xmx{options.heap_mb}m"
        return [self._java.program, heap, *options.jvm, *_LOG, "-cp", f"{self._libs}/*"]

    def _class_archive(self) -> Path:
        """Return the archive of Kafka's parsed classes (JEP 350), made on first use by one run of a broker.

        It halves the time that Java takes to start a broker. Java ignores an archive that does not fit.
        """
        archive = self._libs / f"classes-{self._java.version}.jsa"
        if archive.exists():
            return archive
        with jars.locked(self._libs) as lock, tempfile.TemporaryDirectory(dir=self._libs) as scratch:
            if not archive.exists():
                print("kafka: archiving its classes for quicker starts (once)", file=sys.stderr)
                self._dump_classes(archive, Path(scratch), lock)
        return archive

    def _dump_classes(self, archive: Path, folder: Path, lock_fd: int) -> None:
        address = free_addresses(1)[0]
        settings = folder / "server.properties"
        settings.write_text(properties(address, [address], str(folder / "data")))
        java = self._program(Options())
        _format(java, settings, new_cluster_id())
        dump = folder / archive.name
        command = [*java, f"-XX:ArchiveClassesAtExit={dump}", "kafka.Kafka", str(settings)]
        node = JvmNode(address, folder, command, lock_fd)
        try:
            node.start()
            node.wait_ready()
            node.stop()
            dump.touch()  # empty where this Java does not write one: it is not tried again
            dump.rename(archive)
        finally:
            node.kill()


def _format(java: Sequence[str], settings: Path, cluster_id: str) -> None:
    """Format the data folder that `settings` names with Kafka's own tool."""
    tool = [*java, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(settings)]
    done = subprocess.run(tool, capture_output=True, text=True, check=False, cwd=settings.parent)
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).splitlines()
        raise BrokerFailed("the data folder of a broker cannot be formatted", "\n".join(lines[-30:]))
