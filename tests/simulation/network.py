"""The network between processes and brokers: connections that break, hang, lose and delay.

Owns: what stands where a socket stands (`aiokafka.conn.AIOKafkaConnection`), which requests of one connection are
answered in order, one at a time, as a broker does; the fate of each. Must not know: what requests say.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from aiokafka import errors as kafka_errors
from aiokafka.conn import CloseReason
from aiokafka.util import wait_for

from tests.simulation.kafka_cluster import VERSIONS, Cluster, Node
from tests.simulation.machine import Loop, Process, current_process

__all__ = ["Connection", "Network", "Weather"]

_LATENCY_S = 0.0005


@dataclass
class Weather:
    """How likely each request meets which fate, for now."""

    lost: float = 0.0
    """It never arrives, and nothing after it on this connection."""
    unanswered: float = 0.0
    """It is carried out, and the connection breaks before the answer is there."""
    swallowed: float = 0.0
    """It is carried out, and the answer never comes: the client waits for as long as it likes."""
    late: float = 0.0
    """The answer takes seconds."""
    slow_s: float = 0.0
    """Every way takes up to this much longer."""


class _Transport:
    """What is closed at once, where nobody waits for unsent bytes."""

    def __init__(self, connection: Connection) -> None:
        self.transport = self
        self._connection = connection

    def abort(self) -> None:
        self._connection.is_open = False


class Connection:
    """A connection of a client to a node, with the interface of aiokafka's."""

    def __init__(
        self,
        network: Network,
        host: str,
        port: int,
        *,
        request_timeout_ms: int,
        on_close: Callable[[Connection, Any], None] | None = None,
        **_: Any,
    ) -> None:
        self.host, self.port = host, port
        self.is_open = False
        self.black_hole = False
        self._network = network
        self._timeout_s = request_timeout_ms / 1000
        self._on_close = on_close
        self._writer: _Transport | None = None
        self._requests: deque[tuple[int, Any, asyncio.Future[Any]]] = deque()
        self._process = current_process()
        self._at_server: deque[tuple[Any, asyncio.Future[Any]]] = deque()
        self._busy = False
        self._last_arrival = self._last_answer = 0.0

    async def connect(self) -> None:
        """Raises `OSError` where nobody listens, `TimeoutError` where nobody answers."""
        self.node = await self._network.dial(self.host, self._timeout_s)
        self.is_open = True
        self._writer = _Transport(self)
        self._network.connections[self] = None

    def connected(self) -> bool:
        """Whether it is open."""
        return self.is_open

    def send(self, request: Any, expect_response: bool = True) -> Any:  # noqa: ARG002 -- as aiokafka's
        """The answer, to be awaited."""
        if not self.is_open:
            raise kafka_errors.KafkaConnectionError(f"No connection to broker at {self.host}")
        struct = request.prepare(VERSIONS)
        answer = asyncio.get_running_loop().create_future()
        self._requests.append((0, struct, answer))
        if self._process is None or self._process.effect():
            self._network.carry(self, struct, answer)
        return wait_for(answer, self._timeout_s)

    def close(self, reason: Any = None, exc: BaseException | None = None) -> asyncio.Future[None]:
        """Close our end. What has been sent may still be carried out."""
        self._network.connections.pop(self, None)
        if self._writer is not None:
            self._writer = None
            self.is_open = False
            for _, _, answer in self._requests:
                if not answer.done():
                    error = kafka_errors.KafkaConnectionError(f"Connection at {self.host} closed")
                    error.__cause__ = exc
                    answer.set_exception(error)
            self._requests.clear()
            if self._on_close is not None:
                self._on_close(self, reason)
                self._on_close = None
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        closed.set_result(None)
        return closed

    # --- the node's end

    def arrived(self, struct: Any, answer: asyncio.Future[Any]) -> None:
        """A request is at the node."""
        self._at_server.append((struct, answer))
        self.pump()

    def pump(self) -> None:
        """The node reads the next request, if it is well."""
        if self._busy or not self._at_server or not self.node.up:
            return
        if self.node.hung:
            self._network.stalled[self] = None
            return
        struct, answer = self._at_server.popleft()
        self._busy = True
        self.node.cluster.handle(self.node, struct, lambda response: self._answered(answer, response))

    def forget(self) -> None:
        """The node died: what it had not read is gone."""
        self._at_server.clear()

    def _answered(self, answer: asyncio.Future[Any], response: Any) -> None:
        self._busy = False
        self._network.carry_back(self, answer, response)
        self.pump()

    def deliver(self, answer: asyncio.Future[Any], response: Any) -> None:
        """The answer is at the client."""
        if self.is_open and not answer.done() and (self._process is None or self._process.alive):
            self._requests = deque(waiting for waiting in self._requests if waiting[2] is not answer)
            answer.set_result(response)


class Network:
    """Every connection of the world."""

    def __init__(self, loop: Loop, chance: random.Random, clusters: Iterable[Cluster]) -> None:
        self._nodes = {
            f"{cluster.name}-{node.node_id}": node for cluster in clusters for node in cluster.nodes
        }
        self.weather = Weather()
        self.connections: dict[Connection, None] = {}
        """Those that a client has open."""
        self.stalled: dict[Connection, None] = {}
        """Those with requests that a hung node has not read; their clients may be gone."""
        self._loop = loop
        self._chance = chance
        self._context = contextvars.copy_context()

    async def connect(self, host: str, port: int, **arguments: Any) -> Connection:
        """Stands for `aiokafka.conn.create_conn`."""
        connection = Connection(self, host, port, **arguments)
        await connection.connect()
        return connection

    async def dial(self, host: str, timeout_s: float) -> Node:
        """Find the node, as a TCP handshake and a first request would."""
        process = current_process()
        if process is not None:
            process.effect()
        node = self._nodes.get(host)
        await asyncio.sleep(self._way_s())
        if node is None or not node.up:
            raise ConnectionRefusedError(host)
        if node.hung:
            await asyncio.sleep(timeout_s)
            raise TimeoutError(host)
        await asyncio.sleep(self._way_s())
        return node

    def carry(self, connection: Connection, struct: Any, answer: asyncio.Future[Any]) -> None:
        """Bring a request to its node, or lose it."""
        if self._chance.random() < self.weather.lost:
            connection.black_hole = True
        if connection.black_hole:
            return
        at = max(connection._last_arrival, self._loop.time() + self._way_s())
        connection._last_arrival = at
        self._loop.call_at(at, connection.arrived, struct, answer, context=self._context)

    def carry_back(self, connection: Connection, answer: asyncio.Future[Any], response: Any) -> None:
        """Bring an answer to its client, late, or lose it with the connection."""
        weather, dice = self.weather, self._chance.random()
        delay = self._way_s()
        if dice < weather.unanswered:
            self._loop.call_later(delay, self.cut, connection, context=self._context)
            return
        if connection.black_hole or dice < weather.unanswered + weather.swallowed:
            connection.black_hole = True
            return
        if dice < weather.unanswered + weather.swallowed + weather.late:
            delay += self._chance.choice([0.5, 2.5, 9.0, 12.0])
        at = max(connection._last_answer, self._loop.time() + delay)
        connection._last_answer = at
        self._loop.call_at(at, connection.deliver, answer, response, context=self._context)

    def cut(self, connection: Connection) -> None:
        """The connection breaks; the client learns of it at once."""
        process = connection._process
        if connection.is_open and (process is None or process.alive):
            connection.close(CloseReason.CONNECTION_BROKEN, ConnectionResetError())

    def mend(self) -> None:
        """The weather is fine again. A connection that nothing came through breaks when its client tries again."""
        self.weather = Weather()
        for connection in self.connections:
            if connection.black_hole:
                self._loop.call_later(
                    self._chance.uniform(0, 10), self.cut, connection, context=self._context
                )

    def node_died(self, node: Node) -> None:
        """Its connections break."""
        for connection in [c for c in {**self.connections, **self.stalled} if c.node is node]:
            connection.forget()
            self.stalled.pop(connection, None)
            self.cut(connection)

    def node_goes_on(self, node: Node) -> None:
        """It reads what came while it hung."""
        for connection in [c for c in self.stalled if c.node is node]:
            del self.stalled[connection]
            connection.pump()

    def process_died(self, process: Process) -> None:
        """What it has sent still arrives; nothing is delivered to it."""
        for connection in [c for c in self.connections if c._process is process]:
            connection.is_open = False
            del self.connections[connection]

    def _way_s(self) -> float:
        return _LATENCY_S * (0.5 + self._chance.random()) + self._chance.random() * self.weather.slow_s
