"""aiokafka's client where it falls short. The only module that reaches into its internals.

Owns: closing at once and completely, metadata requests without side effects. Must not know: what is sent.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable
from typing import Any

from aiokafka import errors as kafka_errors
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.cluster import ClusterMetadata
from aiokafka.conn import create_conn
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.structs import TopicPartition

from pipeline.kafka.security import SecurityRefused, doubt, refusal
from pipeline.setting_security import SecuritySet

__all__ = ["Client", "close_at_once"]

log = logging.getLogger(__name__)


def close_at_once(client: AIOKafkaClient) -> None:
    """Let a client that aiokafka made, a consumer's, close as ours does.

    A broker that holds a fetch back does not answer TLS's farewell, for which its connection would wait 30 s.
    """
    close = client.close

    async def at_once() -> None:
        _abort(client)
        await close()

    client.close = at_once


def _abort(client: AIOKafkaClient) -> None:
    for connection in client._conns.values():  # noqa: SLF001
        writer = connection._writer  # noqa: SLF001 -- nothing else reaches the socket
        if writer is not None:
            writer.transport.abort()


class Client(AIOKafkaClient):  # type: ignore[misc]
    """A client that is not connected yet; `await client.bootstrap()` connects it."""

    def __init__(self, *, security: SecuritySet, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._security = security

    _answered: frozenset[str] = frozenset()
    """The topics that the metadata at hand is about."""

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
                if self._sync_task is None:  # type: ignore[has-type]
                    self._sync_task = asyncio.create_task(self._md_synchronizer())
                return
        raise refused or kafka_errors.KafkaConnectionError(f"no broker can be reached: {reason}")

    async def _ask(self, host: str, port: int) -> None:
        """Ask one server for the brokers there are."""
        connection = await create_conn(
            host,
            port,
            client_id=self._client_id,
            request_timeout_ms=self._request_timeout_ms,
            ssl_context=self._ssl_context,
            security_protocol=self._security_protocol,
            max_idle_ms=self._connections_max_idle_ms,
            sasl_mechanism=self._sasl_mechanism,
            sasl_plain_username=self._sasl_plain_username,
            sasl_plain_password=self._sasl_plain_password,
        )
        try:
            self.cluster.update_metadata(await connection.send(MetadataRequest([])))
        except BaseException:
            connection.close()
            raise
        if self.cluster.brokers():
            connection.close()
        else:  # it has only just started: this is the one connection there is
            self._conns["bootstrap", ConnectionGroup.DEFAULT] = connection

    async def close(self) -> None:
        """Close all connections without waiting for unsent bytes, which a hung broker would never take.

        Who waits for metadata is told that there is none; aiokafka leaves them waiting.
        """
        _abort(self)
        await super().close()
        if self._md_update_fut is not None and not self._md_update_fut.done():
            self._md_update_fut.set_result(False)

    async def _metadata_update(self, cluster_metadata: ClusterMetadata, topics: Iterable[str]) -> bool:
        """Ask one broker after the other, without letting it create what is asked for by its own defaults."""
        asked = frozenset(topics)
        request = MetadataRequest(list(asked) or None, allow_auto_topic_creation=False)
        bootstraps = [conn_id for conn_id in self._conns if conn_id[0] == "bootstrap"]
        nodes = [broker.nodeId for broker in self.cluster.brokers()] + [node for node, _ in bootstraps]
        for node in random.sample(nodes, len(nodes)):
            try:
                metadata = await self.send(node, request)
            except (kafka_errors.KafkaError, LookupError) as error:  # it may lose a connection while it waits
                log.warning("no metadata from broker %s: %r", node, error)
                continue
            if not metadata.brokers:
                return False  # it has only just started
            cluster_metadata.update_metadata(metadata)
            self._answered = asked
            for conn_id in bootstraps:
                self._conns.pop(conn_id).close()
            return True
        cluster_metadata.failed_update(None)
        return False
