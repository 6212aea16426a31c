"""A producer that cannot hang: idempotent, acks=all, one unresolved batch per partition, every wait bounded.

Owns: which lanes go into which request, retries, producer ids, the end of everything within a given time.
Must not know: events, stagers, the worker. Order within a partition is the lane's (`pipeline.kafka.lane`).

It talks to brokers through aiokafka's client (connections, metadata, protocol) but not through its producer,
which never gives up on a batch, loses its place after a refused one, and may not return from `stop()`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from dataclasses import dataclass

from aiokafka import errors as kafka_errors
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.structs import TopicPartition

from pipeline.clock import SYSTEM_CLOCK, Clock
from pipeline.errors import StagerClosed, Verdict, classify, verdict_of
from pipeline.kafka.connection import REQUEST_TIMEOUT_S, Connection
from pipeline.kafka.encoding import Identity
from pipeline.kafka.lane import Lane, Parcel

__all__ = ["Producer", "ProducerOptions"]

log = logging.getLogger(__name__)

_MAX_REQUEST_BYTES = 8_388_608
_MAX_IN_FLIGHT = 5
_NO_ERROR, _DUPLICATE_SEQUENCE = 0, 46
_LOST_SEQUENCE = frozenset({45, 47, 49, 59, 90})
"""OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH, INVALID_PRODUCER_ID_MAPPING, UNKNOWN_PRODUCER_ID,
PRODUCER_FENCED."""
_MAYBE_APPENDED = frozenset({7, 20})
"""REQUEST_TIMED_OUT, NOT_ENOUGH_REPLICAS_AFTER_APPEND: the leader has it, the replicas may not."""


@dataclass(frozen=True, slots=True)
class ProducerOptions:
    """How records are grouped. `linger_s`: how long a record waits for companions *while a request to its
    broker is under way*; with none under way it is sent at once."""

    linger_s: float = 0.005
    batch_bytes: int = 1_048_576
    compression: str = "lz4"


class _Node:
    """Requests under way to one broker, and since when something waits for them to end."""

    __slots__ = ("in_flight", "waiting_since")

    def __init__(self) -> None:
        self.in_flight = 0
        self.waiting_since: float | None = None


class Producer:
    """Sends parcels, lane by lane. Bound to the event loop it is started on; not safe from other threads."""

    def __init__(self, connection: Connection, options: ProducerOptions, clock: Clock = SYSTEM_CLOCK) -> None:
        self._connection = connection
        self._options = options
        self._clock = clock
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._busy: dict[Lane, None] = {}
        self._nodes: defaultdict[int, _Node] = defaultdict(_Node)
        self._requests: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._identity: Identity | None = None
        self._identity_wanted: asyncio.Task[None] | None = None
        self._client: AIOKafkaClient | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self.trouble: BaseException | None = None
        """Why no broker can be reached; None once one is."""

    async def start(self) -> None:
        """Begin to work. Does not wait for a broker: what is put before one is reached waits in its lane."""
        self._task = asyncio.create_task(self._run(), name="stagepost-producer")

    async def close(self, timeout_s: float) -> None:
        """Send what waits, for at most `timeout_s`; give up the rest; close the connections. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._task is not None and not self._task.done():  # asyncio.run() cancels it before we are asked
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    self._idle.clear()
                    self._wake.set()
                    await self._idle.wait()
        tasks = [
            task for task in (self._task, self._connecting, self._identity_wanted, *self._requests) if task
        ]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        if self._timer is not None:
            self._timer.cancel()
        for lane in list(self._busy):
            lane.empty(StagerClosed("the producer was closed before the record was acknowledged"))
        self._busy.clear()
        if self._client is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._client.close(), timeout=1.0)

    def lane(self, topic: str, partition: int) -> Lane:
        """The lane of a partition; there is one."""
        lane = self._lanes.get((topic, partition))
        if lane is None:
            lane = self._lanes[topic, partition] = Lane(topic, partition)
        return lane

    def put(self, lane: Lane, parcel: Parcel) -> None:
        """Hand over a parcel. Does not block; the parcel is told what becomes of each record."""
        if self._closed:
            raise StagerClosed("the producer is closed")
        lane.put(parcel)
        self._busy[lane] = None
        self._wake.set()

    async def connected(self) -> None:
        """Wait, without limit, until a broker of the cluster was reached."""
        await self._connect()

    async def partitions(self, topic: str) -> int:
        """The partition count of a topic, asking the cluster if it is not known yet; waits for a broker.

        Raises `UnknownTopicOrPartitionError` or `TopicAuthorizationFailedError`.
        """
        while True:
            client = await self._connect()
            known = client.cluster.partitions_for_topic(topic)
            if known:
                return len(known)
            client.add_topic(topic)
            if await client.force_metadata_update():
                known = client.cluster.partitions_for_topic(topic)
                if known:
                    return len(known)
                if topic in client.cluster.unauthorized_topics:
                    raise kafka_errors.TopicAuthorizationFailedError(topic)
                raise kafka_errors.UnknownTopicOrPartitionError(topic)
            await asyncio.sleep(0.1)

    async def probe(self, topic: str, timeout_s: float) -> None:
        """Ask a broker now whether the topic is there.

        Raises `TimeoutError` where none answers in time, else as `partitions` does.
        """
        async with asyncio.timeout(timeout_s):
            client = await self._connect()
            while not await client.force_metadata_update():  # noqa: ASYNC110 -- it polls a broker
                await asyncio.sleep(0.05)
            await self.partitions(topic)

    def known_partitions(self) -> dict[str, int]:
        """The partition counts in the metadata at hand; empty while no broker was reached."""
        if self._client is None:
            return {}
        cluster = self._client.cluster
        return {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in cluster.topics()}

    def withdraw(self, parcels: set[Parcel]) -> None:
        """Take parcels back. What is in a request under way may still arrive; the rest never will."""
        for lane in self._busy:
            if lane.drop(parcels):
                self._identity = None
        self._wake.set()

    def troubled_lanes(self) -> list[Lane]:
        """The lanes whose last attempt failed."""
        return [lane for lane in self._busy if lane.trouble is not None]

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            # One turn of the loop: calls made in the same turn share a batch, and a lone call loses nothing.
            await asyncio.sleep(0)
            self._dispatch(self._clock.monotonic())

    def _dispatch(self, now: float) -> None:
        """Send what can be sent, and set the timer for what has to wait."""
        expired = TimeoutError("not acknowledged within the delivery timeout")
        due: list[float] = []
        ready: defaultdict[int, list[Lane]] = defaultdict(list)
        for lane in list(self._busy):
            deadline = lane.next_deadline()
            if deadline is not None and now >= deadline:
                if lane.expire(now, lane.trouble or self.trouble or expired):
                    self._identity = None  # so that the lane gets one that was never used on its partition
                deadline = lane.next_deadline()
            if not lane.waiting:
                del self._busy[lane]
                continue
            if deadline is not None:
                due.append(deadline)
            if lane.is_ready(now):
                if self._client_or_connect() is None or self._identity_of(lane) is None:
                    continue  # whoever brings these wakes us
                leader = self._leader(lane)
                if leader is None:
                    lane.failed(kafka_errors.LeaderNotAvailableError(f"{lane.topic}-{lane.partition}"), now)
                    due.append(lane.retry_at)
                else:
                    ready[leader].append(lane)
            elif not lane.in_flight:
                due.append(lane.retry_at)
        for leader, lanes in ready.items():
            wait_until = self._send_or_linger(leader, lanes, now)
            if wait_until is not None:
                due.append(wait_until)
        self._set_timer(min(due) - now if due else None)
        if not self._busy:
            self._idle.set()

    def _send_or_linger(self, leader: int, lanes: list[Lane], now: float) -> float | None:
        """Send now, or the time until which to wait for the request under way and for companions."""
        node = self._nodes[leader]
        if node.in_flight:
            if node.in_flight >= _MAX_IN_FLIGHT:
                return None  # the end of a request wakes us
            if node.waiting_since is None:
                node.waiting_since = now
            until = node.waiting_since + self._options.linger_s
            if now < until:
                return until
        node.waiting_since = None
        budget = _MAX_REQUEST_BYTES
        sending: list[Lane] = []
        for lane in lanes:
            identity = self._identity_of(lane)
            if budget <= 0 or identity is None:
                break
            batch = lane.prepare(
                identity, self._options.batch_bytes, self._options.compression, int(self._clock.time() * 1000)
            )
            lane.in_flight = True
            budget -= len(batch.data)
            sending.append(lane)
        node.in_flight += 1
        task = asyncio.create_task(self._request(leader, node, sending))
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)
        return None

    async def _request(self, leader: int, node: _Node, lanes: list[Lane]) -> None:
        """One ProduceRequest, and its answer carried back to the lanes."""
        sent = {(lane.topic, lane.partition): (lane, lane.batch) for lane in lanes}
        topics: defaultdict[str, list[tuple[int, bytes | bytearray]]] = defaultdict(list)
        for lane in lanes:
            assert lane.batch is not None
            topics[lane.topic].append((lane.partition, lane.batch.data))
        request = ProduceRequest(
            transactional_id=None,
            required_acks=-1,
            timeout=int(REQUEST_TIMEOUT_S * 1000),
            topics=list(topics.items()),
        )
        failure: BaseException | None = None
        in_doubt = True
        try:
            client = await self._connect()
            response = await client.send(leader, request)
            for topic, partitions in response.topics:
                for partition, code, offset, *_ in partitions:
                    lane, batch = sent.pop((topic, partition))
                    if lane.batch is batch:  # else it was given up meanwhile
                        self._answer(lane, code, offset)
        except kafka_errors.NodeNotReadyError as error:  # there was no connection to write to
            failure, in_doubt = error, False
        except kafka_errors.KafkaError as error:
            failure = error
        except (OSError, TimeoutError) as error:
            failure = kafka_errors.KafkaConnectionError(str(error))
        finally:
            node.in_flight -= 1
            self._wake.set()
            now = self._clock.monotonic()
            for lane, batch in sent.values():
                if lane.batch is batch:
                    cause = failure or kafka_errors.KafkaConnectionError("the request was cancelled")
                    lane.failed(cause, now, in_doubt=in_doubt)
        if failure is not None:
            log.warning("produce request to broker %s failed, will be repeated: %r", leader, failure)
            self._refresh_metadata()

    def _answer(self, lane: Lane, code: int, offset: int) -> None:
        """Carry the broker's verdict on one partition to its lane."""
        if code in (_NO_ERROR, _DUPLICATE_SEQUENCE):
            lane.succeeded(offset if code == _NO_ERROR else -1)
            return
        error = kafka_errors.for_code(code)(f"{lane.topic}-{lane.partition}")
        error.errno = code  # aiokafka has no class for the newer ones, such as INVALID_RECORD
        now = self._clock.monotonic()
        if code in _LOST_SEQUENCE:
            lane.out_of_sequence(error, now)
            self._identity = None
        elif verdict_of(classify(error)) is Verdict.POISON:
            lane.refused(error)
        else:
            lane.failed(error, now, in_doubt=code in _MAYBE_APPENDED)
            self._refresh_metadata()
        log.warning("broker answered for %s-%s: %r", lane.topic, lane.partition, error)

    def _leader(self, lane: Lane) -> int | None:
        client = self._client
        assert client is not None
        leader = client.cluster.leader_for_partition(TopicPartition(lane.topic, lane.partition))
        if leader is None or leader < 0:
            client.add_topic(lane.topic)
            self._refresh_metadata()
            return None
        return int(leader)

    def _refresh_metadata(self) -> None:
        if self._client is not None and not self._closed:
            self._client.force_metadata_update()

    def _client_or_connect(self) -> AIOKafkaClient | None:
        if self._client is None and self._connecting is None and not self._closed:
            self._connecting = asyncio.create_task(self._bootstrap())
        return self._client

    async def _connect(self) -> AIOKafkaClient:
        while self._client_or_connect() is None:
            assert self._connecting is not None
            await asyncio.shield(self._connecting)
        assert self._client is not None
        return self._client

    async def _bootstrap(self) -> None:
        pause = 0.1
        while self._client is None:
            client = self._connection.client()
            try:
                await client.bootstrap()
            except kafka_errors.KafkaError as error:
                await client.close()
                self.trouble = error
                log.warning("no broker of %s can be reached: %s", ",".join(self._connection.servers), error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)
            else:
                self._client = client
                self.trouble = None
        self._connecting = None
        self._wake.set()

    def _identity_of(self, lane: Lane) -> Identity | None:
        """The lane's producer id, else the shared one, else None while one is being asked for."""
        if lane.identity is not None:
            return lane.identity
        if self._identity is None:
            if self._identity_wanted is None and self._client is not None:
                self._identity_wanted = asyncio.create_task(self._init_producer_id(self._client))
            return None
        return self._identity

    async def _init_producer_id(self, client: AIOKafkaClient) -> None:
        request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000)
        try:
            node = client.get_random_node()
            response = await client.send(node, request)
            if response.error_code == 0:
                self._identity = Identity(response.producer_id, response.producer_epoch)
            else:
                error = kafka_errors.for_code(response.error_code)
                log.warning("no producer id from broker %s: %r", node, error)
                await asyncio.sleep(0.1)
        except (kafka_errors.KafkaError, OSError, TimeoutError) as error:
            log.warning("no producer id, will ask again: %r", error)
            await asyncio.sleep(0.1)
        finally:
            self._identity_wanted = None
            self._wake.set()

    def _set_timer(self, delay: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if delay is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, delay), self._wake.set)
