"""aiokafka's client where it falls short. The only module that reaches into its internals.

Owns: closing at once and completely, metadata requests without side effects, that one broker which does not answer
keeps nobody from the others. Must not know: what is sent.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Coroutine, Iterable
from typing import Any

from aiokafka import errors as kafka_errors
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.cluster import ClusterMetadata
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.protocol.api import Request, Response
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import JoinGroupRequest, SyncGroupRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.structs import TopicPartition

from pipeline.kafka.security import SecurityRefused, doubt, refusal
from pipeline.setting_security import SecuritySet

__all__ = ["REQUEST_TIMEOUT_S", "Client"]

log = logging.getLogger(__name__)

REQUEST_TIMEOUT_S = 10.0
"""A request without an answer for this long is lost: its connection is closed, the request repeated on another."""


class _Connection(AIOKafkaConnection):  # type: ignore[misc]
    """A connection that ends at once, with what is unsent: TLS's farewell, which a hung broker does not answer, would
    leave it open for 30 s, and one that is given up amid a handshake for as long as the broker likes.

    And one that is broken is broken for all: aiokafka learns it a turn of the event loop late. Who writes until then
    is told a `RuntimeError` by uvloop, which aiokafka's own tasks do not survive: metadata would never come again.
    """

    def connected(self) -> bool:
        """Whether there is something to write to."""
        return self._writer is not None and not self._writer.transport.is_closing() and super().connected()

    def send(self, request: Request, expect_response: bool = True) -> Coroutine[Any, Any, Response]:
        """Write now; what is returned waits for the answer. Raises `KafkaConnectionError`, now or then."""
        self._end_if_broken()
        answer: Coroutine[Any, Any, Response] = super().send(request, expect_response)
        return answer

    def _send_sasl_token(self, payload: bytes, expect_response: bool = True) -> Coroutine[Any, Any, bytes]:
        self._end_if_broken()
        answer: Coroutine[Any, Any, bytes] = super()._send_sasl_token(payload, expect_response)
        return answer

    def _end_if_broken(self) -> None:
        if self._writer is not None and self._writer.transport.is_closing():
            self.close(CloseReason.CONNECTION_BROKEN)

    def close(
        self, reason: CloseReason | None = None, exc: BaseException | None = None
    ) -> asyncio.Future[None]:
        if self._writer is not None:
            self._writer.transport.abort()
        closed: asyncio.Future[None] = super().close(reason, exc)
        return closed


async def create_conn(host: str, port: int, **options: Any) -> AIOKafkaConnection:
    """Connect. Raises a `KafkaError` or an `OSError`."""
    connection = _Connection(host, port, **options)
    await connection.connect()
    return connection


class Client(AIOKafkaClient):  # type: ignore[misc]
    """A client that is not connected yet; `await client.bootstrap()` connects it."""

    def __init__(self, *, security: SecuritySet, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._security = security
        self._sync_task: asyncio.Task[None] | None = None
        self._answered: frozenset[str] = frozenset()
        """The topics that the metadata at hand is about."""
        self._connecting: defaultdict[object, asyncio.Lock] = defaultdict(asyncio.Lock)

    def partition_count(self, topic: str) -> int:
        """How many partitions a topic has by the metadata at hand; 0: not known."""
        return len(self.cluster.partitions_for_topic(topic) or ())

    def leader(self, topic: str, partition: int) -> int:
        """The node id of a partition's leader. Raises the `KafkaError` that says why there is none."""
        leader = self.cluster.leader_for_partition(TopicPartition(topic, partition))
        if leader is not None and leader >= 0:
            return int(leader)
        if topic in self.cluster.unauthorized_topics:
            raise kafka_errors.TopicAuthorizationFailedError(topic)
        if leader is None and topic in self._answered:
            raise kafka_errors.UnknownTopicOrPartitionError(f"{topic}-{partition}")
        raise kafka_errors.LeaderNotAvailableError(f"{topic}-{partition}")

    async def bootstrap(self) -> None:
        """Connect to the first server that answers. Raises `KafkaConnectionError` where none does, and
        `SecurityRefused` where one refuses us, or we it, as the settings are.

        aiokafka's own loses why a connection failed, and leaves one open where it is cancelled.
        """
        refused: SecurityRefused | None = None
        reason = ""
        for host, port, _ in self.hosts:
            server = f"{host}:{port}"
            try:
                await self._ask(host, port)
            except (kafka_errors.KafkaError, OSError, TimeoutError) as error:
                reason = f"{server}: {str(error) or type(error).__name__}{doubt(error, self._security)}"
                refused = refused or refusal(error, self._security, server)
            else:
                if self._sync_task is None:
                    self._sync_task = asyncio.create_task(self._md_synchronizer())
                return
        raise refused or kafka_errors.KafkaConnectionError(f"no broker can be reached: {reason}")

    async def _ask(self, host: str, port: int) -> None:
        """Ask one server for the brokers there are."""
        connection = await create_conn(host, port, **self._options())
        try:
            self.cluster.update_metadata(await connection.send(MetadataRequest([])))
        except BaseException:
            connection.close()
            raise
        if self.cluster.brokers():
            connection.close()
        else:  # it has only just started: this is the one connection there is
            self._conns["bootstrap", ConnectionGroup.DEFAULT] = connection

    async def reach(self) -> None:
        """Connect to one of the brokers, whichever can be reached. Raises `KafkaConnectionError` where none can."""
        nodes = [broker.nodeId for broker in self.cluster.brokers()]
        for node in random.sample(nodes, len(nodes)):
            if await self.ready(node):
                return
        if nodes:
            raise kafka_errors.KafkaConnectionError(f"none of the brokers {sorted(nodes)} can be reached")

    def get_random_node(self) -> Any:
        """The node id of a broker, for what any of them answers: of one that we are connected to, where there is one.
        aiokafka takes any, also the one that is down."""
        nodes = [node for (node, _), connection in self._conns.items() if connection.connected()]
        return random.choice(nodes) if nodes else super().get_random_node()  # noqa: S311 -- no secret

    async def send(
        self, node_id: int | str, request: Request, *, group: ConnectionGroup = ConnectionGroup.DEFAULT
    ) -> Response:
        """The answer. Raises a `KafkaError`: `NodeNotReadyError` where nothing was sent; `RequestTimedOutError` after
        `REQUEST_TIMEOUT_S`, and the connection is closed; but joining a group takes as long as its slowest member.

        A fetch that failed in part returns after a pause. aiokafka asks again at once, a thousand times a second, for
        as long as it does not know the new leader.
        """
        if not await self.ready(node_id, group=group):
            raise kafka_errors.NodeNotReadyError(f"broker {node_id} cannot be reached")
        waits_for_members = isinstance(request, JoinGroupRequest | SyncGroupRequest)
        try:
            async with asyncio.timeout(None if waits_for_members else REQUEST_TIMEOUT_S):
                answer = await super().send(node_id, request, group=group)
        except TimeoutError:
            connection = self._conns.get((node_id, group))
            if connection is not None:
                connection.close(reason=CloseReason.CONNECTION_TIMEOUT)
            raise kafka_errors.RequestTimedOutError from None
        if isinstance(request, FetchRequest) and _failed_in_part(answer):
            await asyncio.sleep(self._retry_backoff)
        return answer

    def begin(self, node_id: int | str, request: Request) -> asyncio.Future[Response] | None:
        """Write a request now; the future of its answer, which fails as `send` does. None: there is no connection.

        What `send` takes for a request beside that – tasks, timers, turns of the event loop – is much for one event.
        """
        connection = self._conns.get((node_id, ConnectionGroup.DEFAULT))
        if connection is None or not connection.connected():
            return None
        connection.send(request).close()  # it is written; what is left would wait for the future that we take
        answer: asyncio.Future[Response] = connection._requests[-1][2]  # noqa: SLF001
        limit = asyncio.get_running_loop().call_later(REQUEST_TIMEOUT_S, _give_up, connection, answer)
        answer.add_done_callback(lambda _: limit.cancel())
        return answer

    async def _get_conn(
        self,
        node_id: int | str,
        *,
        group: ConnectionGroup = ConnectionGroup.DEFAULT,
        no_hint: bool = False,  # noqa: ARG002 -- upstream's signature
    ) -> AIOKafkaConnection | None:
        """A connection to a broker; None where there is none within `REQUEST_TIMEOUT_S`.

        aiokafka connects to one broker at a time: one that hangs keeps it from all others.
        """
        known = self._conns.get((node_id, group))
        if known is not None and known.connected():
            return known
        async with self._connecting[node_id, group]:
            known = self._conns.get((node_id, group))
            if known is not None and known.connected():
                return known
            self._conns.pop((node_id, group), None)
            try:
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    connection = await self._connect(node_id)
            except Exception as error:  # noqa: BLE001 -- whatever it is: it must not end those who look for brokers
                log.warning("kafka.no_connection broker=%s error=%r", node_id, error)
                self.force_metadata_update()
                return None
            self._conns[node_id, group] = connection
            return connection

    async def _connect(self, node_id: int | str) -> AIOKafkaConnection:
        broker = self.cluster.broker_metadata(node_id)
        if broker is None:
            raise kafka_errors.StaleMetadata(f"broker {node_id} is not in the metadata at hand")
        on_close = self._on_connection_closed
        return await create_conn(broker.host, broker.port, on_close=on_close, **self._options())

    def _options(self) -> dict[str, Any]:
        """How to connect to any server."""
        return {
            "client_id": self._client_id,
            "request_timeout_ms": self._request_timeout_ms,
            "ssl_context": self._ssl_context,
            "security_protocol": self._security_protocol,
            "max_idle_ms": self._connections_max_idle_ms,
            "sasl_mechanism": self._sasl_mechanism,
            "sasl_plain_username": self._sasl_plain_username,
            "sasl_plain_password": self._sasl_plain_password,
        }

    async def close(self) -> None:
        """Close all connections at once. Who is cancelled meanwhile has closed them all the same.

        aiokafka takes such a cancellation for the end of its own task and drops it: whoever was to end goes on. And
        who waits for metadata is told that there is none; aiokafka leaves them waiting.
        """
        looking, self._sync_task = self._sync_task, None
        try:
            if looking is not None:
                looking.cancel()
                await asyncio.wait({looking})
        finally:
            await super().close()
            if self._md_update_fut is not None and not self._md_update_fut.done():
                self._md_update_fut.set_result(False)

    async def _metadata_update(self, cluster_metadata: ClusterMetadata, topics: Iterable[str] | None) -> bool:
        """Ask one broker after the other, without letting it create what is asked for by its own defaults."""
        asked = frozenset(topics or ())
        request = MetadataRequest(list(asked) or None, allow_auto_topic_creation=False)
        bootstraps = [conn_id for conn_id in self._conns if conn_id[0] == "bootstrap"]
        nodes = [broker.nodeId for broker in self.cluster.brokers()] + [node for node, _ in bootstraps]
        for node in random.sample(nodes, len(nodes)):
            try:
                metadata = await self.send(node, request)
            except Exception as error:  # noqa: BLE001 -- whatever it is, the next one is asked: nobody else would ever be
                log.warning("kafka.no_metadata broker=%s error=%r", node, error)
                continue
            if not metadata.brokers:
                return False  # it has only just started
            cluster_metadata.update_metadata(metadata)
            self._answered = asked
            for connection in [self._conns.pop(conn_id, None) for conn_id in bootstraps]:
                if connection is not None:  # else it was lost while it was waited for
                    connection.close()
            return True
        cluster_metadata.failed_update(None)
        return False


def _give_up(connection: AIOKafkaConnection, answer: asyncio.Future[Response]) -> None:
    if not answer.done():
        answer.set_exception(kafka_errors.RequestTimedOutError())
        connection.close(reason=CloseReason.CONNECTION_TIMEOUT)


def _failed_in_part(fetched: Response) -> bool:
    return any(code for _, partitions in fetched.topics for _, code, *_ in partitions)
