"""What a producer needs of aiokafka's client: a broker to talk to, leaders, producer ids, an end within a second.

Owns: connecting and trying again, asking for metadata and producer ids.
Must not know: lanes, batches, requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from aiokafka import errors as kafka_errors
from aiokafka.protocol.api import Request, Response
from aiokafka.protocol.transaction import InitProducerIdRequest

from pipeline.errors import StagepostError, StagerClosed
from pipeline.kafka.client import Client
from pipeline.kafka.connection import Connection
from pipeline.kafka.encoding import Identity

__all__ = ["Session"]

log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.1
_LAST_PAUSE_S = 2.0


class Session:
    """The way to one cluster. Bound to the event loop it is used on.

    `on_change` is called when something came that was asked for in vain: a connection, a producer id.
    """

    def __init__(self, connection: Connection, on_change: Callable[[], None]) -> None:
        self._connection = connection
        self._on_change = on_change
        self._client: Client | None = None
        self._identity: Identity | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[None] | None = None
        self._decided = asyncio.Event()
        self._closed = False
        self._refused: StagepostError | None = None
        """Why no broker lets us in; None once one does, or none can be reached at all."""
        self.trouble: BaseException | None = None
        """Why nothing can be sent to anybody; None once it can."""

    def is_connected(self) -> bool:
        """Whether a broker was reached. Where not, one is looked for from now on."""
        if self._client is None and self._connecting is None and not self._closed:
            self._connecting = asyncio.create_task(self._connect(), name="stagepost-connect")
        return self._client is not None

    async def connected(self) -> None:
        """Wait, without limit, until a broker was reached.

        Raises `SecurityRefused` where one refuses us, or we it, as the settings are; and `StagerClosed`.
        """
        await self._wait_for_client()

    def leader(self, topic: str, partition: int) -> int:
        """The node id of a partition's leader; to be asked while connected.

        Where none is known, the cluster is asked, and a `KafkaError` raised that says why.
        """
        assert self._client is not None
        try:
            return self._client.leader(topic, partition)
        except kafka_errors.KafkaError:
            self._client.add_topic(topic)
            self.refresh()
            raise

    def identity(self, spent: Identity | None) -> Identity | None:
        """A producer id that is not `spent`; None while the cluster is being asked for one."""
        if self._identity is not None and self._identity != spent:
            return self._identity
        if self._asking is None and self._client is not None and not self._closed:
            self._asking = asyncio.create_task(self._ask_for_identity(self._client), name="stagepost-id")
        return None

    def refresh(self) -> None:
        """Let the cluster be asked for its leaders anew. Does not block."""
        if self._client is not None and not self._closed:
            self._client.force_metadata_update()

    async def send(self, node: int, request: Request) -> Response:
        """Send a request, and wait for its answer for at most some 10 s. Raises a `KafkaError`."""
        client = await self._wait_for_client()
        return await client.send(node, request)

    def begin(self, node: int, request: Request) -> asyncio.Future[Response]:
        """Send a request, now where there is a connection; the future of its answer, which fails as `send` does."""
        answer = self._client.begin(node, request) if self._client is not None else None
        return answer if answer is not None else asyncio.ensure_future(self.send(node, request))

    async def partitions(self, topic: str) -> int:
        """The partition count of a topic, asking the cluster if it is not known yet; waits for a broker.

        Raises `UnknownTopicOrPartitionError`, `TopicAuthorizationFailedError` or `StagerClosed`.
        """
        while True:
            client = await self._wait_for_client()
            count = client.partition_count(topic)
            client.add_topic(topic)
            if count or await self._look_up(client, topic):
                return count or client.partition_count(topic)
            await asyncio.sleep(_FIRST_PAUSE_S)

    async def probe(self, topic: str, timeout_s: float) -> None:
        """Ask a broker now whether the topic is there.

        Raises `TimeoutError` where none answers in time, else as `partitions` does.
        """
        async with asyncio.timeout(timeout_s):
            client = await self._wait_for_client()
            while not await client.force_metadata_update():
                await asyncio.sleep(_FIRST_PAUSE_S)
                client = await self._wait_for_client()
            await self.partitions(topic)

    def known_partitions(self) -> dict[str, int]:
        """The partition counts in the metadata at hand; empty while no broker was reached."""
        client = self._client
        return {topic: client.partition_count(topic) for topic in client.cluster.topics()} if client else {}

    async def close(self) -> None:
        """Let go of all connections, within some 2 s. Whoever waits is told `StagerClosed`. Idempotent."""
        self._closed = True
        self._decided.set()
        tasks = [task for task in (self._connecting, self._asking) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await client.close()

    async def _wait_for_client(self) -> Client:
        self.is_connected()
        await self._decided.wait()
        if self._client is not None:
            return self._client
        if self._refused is not None and not self._closed:
            raise self._refused.with_traceback(None)
        raise StagerClosed("the connection to the cluster is closed")

    async def _connect(self) -> None:
        pause = _FIRST_PAUSE_S
        while self._client is None:
            client: Client | None = None
            try:
                client = self._connection.client()
                await client.bootstrap()
            except Exception as error:  # noqa: BLE001 -- whatever it is: without a broker, only trying again is left
                if client is not None:
                    await client.close()
                self.trouble = error
                self._refuse(error if isinstance(error, StagepostError) else None)
                log.warning(
                    "kafka.unreachable brokers=%s error=%r", ",".join(self._connection.servers), error
                )
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LAST_PAUSE_S)
            else:
                self._client = client
        self.trouble = self._refused = None
        self._connecting = None
        self._decided.set()
        self._on_change()

    def _refuse(self, error: StagepostError | None) -> None:
        """Whoever waits is told at once; we go on trying, for passwords and certificates are changed at run time."""
        self._refused = error
        if error is not None:
            self._decided.set()
        elif not self._closed:
            self._decided.clear()

    async def _ask_for_identity(self, client: Client) -> None:
        pause = _FIRST_PAUSE_S
        while (identity := await self._init_producer_id(client)) is None:
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LAST_PAUSE_S)
        self._identity = identity
        self.trouble = None
        self._asking = None
        self._on_change()

    async def _init_producer_id(self, client: Client) -> Identity | None:
        request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000)
        try:
            response = await client.send(client.get_random_node(), request)
        except Exception as error:  # noqa: BLE001 -- whatever it is: without an id, only asking again is left
            self._no_identity(error)
            return None
        if response.error_code:
            self._no_identity(kafka_errors.for_code(response.error_code)())
            return None
        return Identity(response.producer_id, response.producer_epoch)

    def _no_identity(self, error: BaseException) -> None:
        if type(error) is not type(self.trouble):
            log.warning("producer.no_id error=%r", error)
        self.trouble = error
        self.refresh()

    @staticmethod
    async def _look_up(client: Client, topic: str) -> bool:
        """True once the topic is known, False where nobody answered; raises where it is certain that it is not."""
        for _ in range(2):  # an update under way may have begun before anybody wanted this topic
            if not await client.force_metadata_update():
                return False
            if client.partition_count(topic):
                return True
        if topic in client.cluster.unauthorized_topics:
            raise kafka_errors.TopicAuthorizationFailedError(topic)
        raise kafka_errors.UnknownTopicOrPartitionError(topic)
