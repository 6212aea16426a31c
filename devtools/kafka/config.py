"""What a cluster is to be: its nodes, their ports and their properties.

Owns: every broker setting that the tool chooses. Must not know: processes.
"""

from __future__ import annotations

import random
import socket
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_LOWEST_PORT = 15_000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


@dataclass(frozen=True, slots=True)
class Entrance:
    """A further port of a node for clients, which are told another one where there is a proxy (door.py)."""

    name: str
    port: int
    told: int
    protocol: str = "PLAINTEXT"


@dataclass(frozen=True, slots=True)
class Address:
    """Where one node listens on 127.0.0.1: `port` for clients and brokers, `controller` for the quorum, and at each
    of its entrances."""

    node_id: int
    port: int
    controller: int
    entrances: tuple[Entrance, ...] = ()


@dataclass(frozen=True, slots=True)
class Options:
    """What the user of a cluster may choose; `Cluster` says what each means."""

    extra_config: Mapping[str, str] = field(default_factory=dict)
    quick_start: bool = True
    heap_mb: int = 400

    @property
    def jvm(self) -> tuple[str, ...]:
        """The options of the JVM, without the heap."""
        quick = ("-XX:TieredStopAtLevel=1",) if self.quick_start else ()
        return ("-XX:+UseSerialGC", "-Xshare:auto", *quick)


def free_addresses(
    count: int, doors: Sequence[str] = (), listeners: Mapping[str, str] | None = None
) -> tuple[Address, ...]:
    """Choose free ports for `count` nodes, numbered from 1, with an entrance for each of the doors and `listeners`.

    They lie below the range the kernel takes for outgoing connections: else a client that retries while
    a broker is down could itself be given the broker's port, and the broker could not come back.
    """
    protocols = listeners or {}
    held: list[socket.socket] = []
    try:
        while len(held) < count * (2 + 2 * len(doors) + len(protocols)):
            taken = _try_port(random.randrange(_LOWEST_PORT, _first_ephemeral()))  # noqa: S311 - no secret
            if taken is not None:
                held.append(taken)
        ports = iter([int(one.getsockname()[1]) for one in held])
    finally:
        for one in held:
            one.close()
    return tuple(
        Address(
            node_id,
            next(ports),
            next(ports),
            (
                *(Entrance(name.upper(), next(ports), next(ports)) for name in doors),
                *(Entrance(name, (port := next(ports)), port, of) for name, of in protocols.items()),
            ),
        )
        for node_id in range(1, count + 1)
    )


def new_cluster_id() -> str:
    """Return a fresh cluster id: a UUID in URL-safe base 64, as Kafka writes it."""
    while (text := urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass  # Kafka makes no such ids either: its tools would take one for an option
    return text


def properties(address: Address, all_of: Sequence[Address], data: str, *extra: Mapping[str, str]) -> str:
    """Return the `server.properties` of one node, broker and controller in one; `extra` wins over ours."""
    copies = min(3, len(all_of))
    in_sync = 2 if copies == 3 else 1
    chosen = {
        "process.roles": "broker,controller",
        "node.id": str(address.node_id),
        "controller.quorum.voters": ",".join(f"{a.node_id}@127.0.0.1:{a.controller}" for a in all_of),
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://127.0.0.1:{address.port},CONTROLLER://127.0.0.1:{address.controller}"
        + "".join(f",{entrance.name}://127.0.0.1:{entrance.port}" for entrance in address.entrances),
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{address.port}" + told(address),
        "listener.security.protocol.map": ",".join(
            [
                "PLAINTEXT:PLAINTEXT",
                "CONTROLLER:PLAINTEXT",
                *(f"{entrance.name}:{entrance.protocol}" for entrance in address.entrances),
            ]
        ),
        "log.dirs": data,
        "auto.create.topics.enable": "false",
        "default.replication.factor": str(copies),
        "min.insync.replicas": str(in_sync),
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": str(copies),
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": str(copies),
        "transaction.state.log.min.isr": str(in_sync),
        "share.coordinator.state.topic.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": str(copies),
        "share.coordinator.state.topic.min.isr": str(in_sync),
        "group.initial.rebalance.delay.ms": "0",
        # A killed broker may register again only when its last session has ended: short, for restarts.
        "broker.session.timeout.ms": "2000" if len(all_of) == 1 else "6000",
        "broker.heartbeat.interval.ms": "200",
    }
    for more in extra:
        chosen.update(more)
    return "".join(f"{name}={value}\n" for name, value in chosen.items())


def told(address: Address) -> str:
    """What `advertised.listeners` says of the entrances, to be appended."""
    return "".join(f",{entrance.name}://127.0.0.1:{entrance.told}" for entrance in address.entrances)


def _first_ephemeral() -> int:
    try:
        first = int(_EPHEMERAL.read_text().split()[0])
    except OSError:
        first = 32_768
    return max(first, _LOWEST_PORT + 1_000)


def _try_port(port: int) -> socket.socket | None:
    """Return a socket that holds `port`, or nothing if another program has it."""
    one = socket.socket()
    try:
        one.bind(("127.0.0.1", port))
    except OSError:
        one.close()
        return None
    return one
