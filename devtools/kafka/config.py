"""The properties of a node, and the ports it listens on.

Owns: every broker setting that the tool chooses. Must not know: processes.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_LOWEST_PORT = 15_000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


@dataclass(frozen=True, slots=True)
class Address:
    """Where one node listens on 127.0.0.1: `port` for clients and brokers, `controller` for the quorum."""

    node_id: int
    port: int
    controller: int


def free_addresses(count: int) -> tuple[Address, ...]:
    """Choose free ports for `count` nodes, numbered from 1.

    They lie below the range the kernel takes for outgoing connections: else a client that retries while
    a broker is down could itself be given the broker's port, and the broker could not come back.
    """
    held: list[socket.socket] = []
    try:
        while len(held) < 2 * count:
            taken = _try_port(random.randrange(_LOWEST_PORT, _first_ephemeral()))  # noqa: S311 - no secret
            if taken is not None:
                held.append(taken)
        ports = [int(one.getsockname()[1]) for one in held]
    finally:
        for one in held:
            one.close()
    return tuple(Address(i + 1, ports[2 * i], ports[2 * i + 1]) for i in range(count))


def properties(address: Address, all_of: Sequence[Address], data: Path, extra: Mapping[str, str]) -> str:
    """Return the `server.properties` of one node, broker and controller in one; `extra` wins."""
    copies = min(3, len(all_of))
    in_sync = 2 if copies == 3 else 1
    chosen = {
        "process.roles": "broker,controller",
        "node.id": str(address.node_id),
        "controller.quorum.voters": ",".join(f"{a.node_id}@127.0.0.1:{a.controller}" for a in all_of),
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://127.0.0.1:{address.port},CONTROLLER://127.0.0.1:{address.controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{address.port}",
        "log.dirs": str(data),
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
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "300",
    }
    return "".join(f"{name}={value}\n" for name, value in {**chosen, **extra}.items())


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
