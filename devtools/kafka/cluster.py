"""A cluster of real Kafka brokers on this machine, for tests, benchmarks and the demo.

Owns: ports, formatting, and starting and ending the nodes together. Must not know: who wants the cluster.
"""

from __future__ import annotations

import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from devtools.kafka import jars
from devtools.kafka.config import Address, free_addresses, properties
from devtools.kafka.errors import BrokerFailed
from devtools.kafka.node import Node
from devtools.kafka.scratch import RUN, Scratch

_ATTEMPTS = 3
_QUICK_START = ("-XX:TieredStopAtLevel=1",)
_JVM = ("-XX:+UseSerialGC", "-Xshare:auto", "-Dorg.slf4j.simpleLogger.showDateTime=true")


class Cluster:
    """One or more brokers (KRaft, each broker and controller in one) in a scratch folder, on free ports.

    `nodes`: how many; internal topics have min(3, nodes) replicas. `extra_config`: broker properties that
    override the tool's own. `quick_start`: leave the JVM's second compiler out, which starts a broker sooner;
    say False for benchmarks. `heap_mb`: the Java heap of each broker. A context manager: starts on entry.
    """

    def __init__(
        self,
        nodes: int = 1,
        *,
        extra_config: Mapping[str, str] | None = None,
        quick_start: bool = True,
        heap_mb: int = 400,
        run_root: Path = RUN,
    ) -> None:
        self.nodes: tuple[Node, ...] = ()
        self._count = nodes
        self._extra = dict(extra_config or {})
        self._jvm = [f"-Xmx{heap_mb}m", *_JVM, *(_QUICK_START if quick_start else ())]
        self._run_root = run_root
        self._scratch: Scratch | None = None

    @property
    def bootstrap(self) -> str:
        """`host:port` of every node, separated by commas."""
        return ",".join(node.bootstrap for node in self.nodes)

    def start(self, timeout_s: float = 90.0) -> Self:
        """Start all brokers and wait until each knows them all (blocks, some 5 s).

        Raises `NoBroker` without Java or Maven, and `BrokerFailed` with the end of a log.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._start_once(timeout_s)
            except BrokerFailed as failure:
                self.stop()
                if not failure.address_taken or attempt == _ATTEMPTS:
                    raise
            except BaseException:
                self.stop()
                raise
            else:
                break
        return self

    def wait_ready(self, timeout_s: float = 90.0) -> None:
        """Wait until every running broker answers and knows every running one; raises `BrokerFailed`."""
        deadline = time.monotonic() + timeout_s
        up = [node for node in self.nodes if node.running]
        expected = frozenset(node.address.node_id for node in up)
        for node in up:
            node.wait_ready(expected, max(0.0, deadline - time.monotonic()))

    def stop(self) -> None:
        """End all brokers and remove their data. They are killed: nothing is kept. Can be repeated."""
        for node in self.nodes:
            node.kill()
        self.nodes = ()
        if self._scratch is not None:
            self._scratch.remove()
            self._scratch = None

    def __enter__(self) -> Self:
        """Start the cluster, unless it runs."""
        return self if self.nodes else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Stop the cluster."""
        self.stop()

    def _start_once(self, timeout_s: float) -> None:
        java, libs = jars.java(), jars.resolve()
        self._scratch = Scratch(self._run_root)
        program = [java, *self._jvm, "-cp", f"{libs}/*"]
        addresses = free_addresses(self._count)
        cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        self.nodes = tuple(self._make(a, addresses, program, cluster_id) for a in addresses)
        for node in self.nodes:
            node.start()
        deadline = time.monotonic() + timeout_s
        for node in self.nodes:
            everybody = frozenset(a.node_id for a in addresses)
            node.wait_ready(everybody, max(0.0, deadline - time.monotonic()))

    def _make(
        self, address: Address, all_of: tuple[Address, ...], program: list[str], cluster_id: str
    ) -> Node:
        """Write one node's settings and format its data folder with Kafka's own tool."""
        assert self._scratch is not None  # noqa: S101 - for mypy
        folder = self._scratch.path / f"node-{address.node_id}"
        folder.mkdir()
        settings = folder / "server.properties"
        settings.write_text(properties(address, all_of, folder / "data", self._extra))
        tool = [*program, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(settings)]
        done = subprocess.run(tool, capture_output=True, text=True, check=False, cwd=folder)
        if done.returncode != 0:
            said = done.stdout + done.stderr
            raise BrokerFailed(f"broker {address.node_id} cannot be formatted", settings, said)
        return Node(address, folder, [*program, "kafka.Kafka", str(settings)], self._scratch.lock_fd)
