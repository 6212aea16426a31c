"""A cluster of real Kafka brokers on this machine, for tests, benchmarks and the demo.

Owns: starting and ending the nodes together, and other ports when one was taken. Must not know: who wants it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from devtools.kafka.choice import Brokers, EngineName, choose_engine, given
from devtools.kafka.config import Address, Options, free_addresses
from devtools.kafka.door import Door
from devtools.kafka.engine import Engine
from devtools.kafka.errors import BrokerFailed
from devtools.kafka.node import Node
from devtools.kafka.scratch import RUN, Scratch

_ATTEMPTS = 3


class Cluster:
    """One or more brokers (KRaft, each broker and controller in one) in a scratch folder, on free ports.

    `nodes`: how many; internal topics have min(3, nodes) replicas. `extra_config`: broker properties that
    override the tool's own. `engine`: what runs them (choice.py). `quick_start`: leave the JVM's second
    compiler out, which starts a broker sooner; say False for benchmarks. `heap_mb`: the Java heap of each
    broker. `run_root`: where the scratch folder is made. `doors`: names of further ways in, each of which can be
    shut (door.py): lower-case letters. `listeners`: further ones by name (upper-case letters), each with its security
    protocol; what else they need stands in `extra_config`, and as it names files of this machine, brokers with
    `listeners` run on the JVM. A context manager that starts on entry.
    """

    def __init__(
        self,
        nodes: int = 1,
        *,
        extra_config: Mapping[str, str] | None = None,
        engine: EngineName = "auto",
        quick_start: bool = True,
        heap_mb: int = 400,
        run_root: Path = RUN,
        doors: Sequence[str] = (),
        listeners: Mapping[str, str] | None = None,
    ) -> None:
        self.nodes: tuple[Node, ...] = ()
        self.doors: dict[str, Door] = {}
        self._door_names = tuple(doors)
        self._count = nodes
        self._options = Options(dict(extra_config or {}), quick_start, heap_mb)
        self._listeners = dict(listeners or {})
        self._engine_name: EngineName = "jvm" if listeners else engine
        self._run_root = run_root
        self._engine: Engine | None = None
        self._scratch: Scratch | None = None

    @property
    def bootstrap(self) -> str:
        """`host:port` of every node, separated by commas."""
        return ",".join(node.bootstrap for node in self.nodes)

    def listener(self, name: str) -> str:
        """`host:port` of every node's further listener of that name, separated by commas."""
        ports = (
            entrance.port
            for node in self.nodes
            for entrance in node.address.entrances
            if entrance.name == name
        )
        return ",".join(f"127.0.0.1:{port}" for port in ports)

    @property
    def engine(self) -> str:
        """What runs the nodes, `jvm` or `docker`; empty while the cluster is not started."""
        return self._engine.name if self._engine is not None else ""

    def start(self, timeout_s: float = 90.0) -> Self:
        """Start all brokers and wait until each knows them all (blocks, some 4 s for one); repeatable.

        Raises `NoBroker` where none can be had, and `BrokerFailed` with the end of a log.
        """
        if self.nodes:
            return self
        self._engine = choose_engine(self._engine_name)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._start_once(self._engine, timeout_s)
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
        for door in self.doors.values():
            door.close()
        self.doors = {}
        if self._engine is not None:
            self._engine.close()
        self.nodes = ()
        if self._scratch is not None:
            self._scratch.remove()
            self._scratch = None

    def __enter__(self) -> Self:
        """Start the cluster, unless it runs."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the cluster."""
        self.stop()

    def _start_once(self, engine: Engine, timeout_s: float) -> None:
        self._scratch = Scratch(self._run_root)
        addresses = free_addresses(self._count, self._door_names, self._listeners)
        self.nodes = engine.create(addresses, self._options, self._scratch)
        for number, name in enumerate(self._door_names):
            self.doors[name] = Door(name, _ports(addresses, number))
        for node in self.nodes:
            node.start()
        everybody = frozenset(node.address.node_id for node in self.nodes)
        deadline = time.monotonic() + timeout_s
        for node in self.nodes:
            node.wait_ready(everybody, max(0.0, deadline - time.monotonic()))


def _ports(addresses: Sequence[Address], door: int) -> dict[int, int]:
    """Where the proxies of a door listen, and where each leads to."""
    return {address.entrances[door].told: address.entrances[door].port for address in addresses}


@contextmanager
def brokers(environ: Mapping[str, str] = os.environ) -> Iterator[Brokers]:
    """Yield the given brokers, else a one-node cluster that ends with the block; raises `NoBroker`."""
    there = given(environ)
    if there is not None:
        yield there
        return
    with Cluster() as cluster:
        yield cluster
