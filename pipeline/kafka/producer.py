"""A producer that cannot hang: idempotent, acks=all, one unresolved batch per partition, every wait bounded.

Owns: what each lane waits for, what goes into the next request, the end of everything within a given time.
Must not know: events, stagers, the worker. Order within a partition is the lane's (`pipeline.kafka.lane`).

It talks to brokers through aiokafka's client (`pipeline.kafka.session`) but not through its producer, which
never gives up on a batch, loses its place after a refused one, and may not return from `stop()`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from functools import partial

from aiokafka import errors as kafka_errors

from pipeline.clock import SYSTEM_CLOCK, Clock
from pipeline.errors import StagerClosed
from pipeline.kafka.agenda import Agenda
from pipeline.kafka.connection import Connection
from pipeline.kafka.encoding import Identity, Unencodable
from pipeline.kafka.exchange import Exchange
from pipeline.kafka.lane import Batch, Lane, Parcel
from pipeline.kafka.node import Node
from pipeline.kafka.request import empty_request, refusal_of
from pipeline.kafka.session import Session

__all__ = ["Producer", "ProducerOptions"]

log = logging.getLogger(__name__)

_PAUSE_AFTER_A_BUG_S = 1.0


@dataclass(frozen=True, slots=True)
class ProducerOptions:
    """How records are grouped. `linger_s`: how long a record waits for companions *while a request to its
    broker is under way*; with none under way it is sent at once."""

    linger_s: float = 0.005
    batch_bytes: int = 1_048_576
    compression: str = "lz4"


class Producer:
    """Sends parcels, lane by lane. Bound to the event loop it is started on; not safe from other threads."""

    def __init__(self, connection: Connection, options: ProducerOptions, clock: Clock = SYSTEM_CLOCK) -> None:
        self._options = options
        self._clock = clock
        self._session = Session(connection, self._look_at_stalled)
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._busy: dict[Lane, None] = {}
        """The lanes with records that have not ended. A dict, not a set: in the order in which they came."""
        self._changed: dict[Lane, None] = {}
        """To be looked at in the next turn; the cost of a turn is that of these."""
        self._stalled: dict[Lane, None] = {}
        """Wait for a connection or a producer id."""
        self._agenda: Agenda[Lane] = Agenda()
        self._nodes: dict[int, Node] = {}
        self._exchange = Exchange(self._session, clock, self._look_at)
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def trouble(self) -> BaseException | None:
        """Why nothing can be sent to any broker; None once it can."""
        return self._session.trouble

    async def start(self) -> None:
        """Begin to work. Does not wait for a broker: what is put before one is reached waits in its lane."""
        self._task = asyncio.create_task(self._run(), name="stagepost-producer")

    async def close(self, timeout_s: float) -> None:
        """Send what waits, for at most `timeout_s`; give up the rest; close the connections. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self.is_running:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    self._idle.clear()
                    self._look_at(*self._busy)
                    await self._idle.wait()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=1.0)
        await self._exchange.stop(1.0)
        if self._timer is not None:
            self._timer.cancel()
        for lane in list(self._busy):
            lane.empty(StagerClosed("the producer was closed before the record was acknowledged"))
        self._busy.clear()
        await self._session.close()

    @property
    def is_running(self) -> bool:
        """Whether anything put here can still be sent. asyncio.run() cancels our task before it lets us close."""
        return self._task is not None and not self._task.done()

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
        if lane not in self._changed:
            self._changed[lane] = None
            self._wake.set()

    def evict(self, lane: Lane) -> list[Parcel]:
        """Take everything out of a lane, in order; what is in a request under way may still arrive."""
        parcels = lane.evict()
        self._look_at(lane)
        self._wake.set()
        return parcels

    def withdraw(self, parcels: set[Parcel]) -> None:
        """Take parcels back. What is in a request under way may still arrive; the rest never will."""
        for lane in self._busy:
            lane.drop(parcels)
        self._look_at(*self._busy)

    def troubled_lanes(self) -> list[Lane]:
        """The lanes with records waiting whose last attempt failed."""
        return [lane for lane in self._busy if lane.trouble is not None and lane.waiting]

    def busy_lanes(self) -> list[Lane]:
        """The lanes with records that have not ended."""
        return [lane for lane in self._busy if lane.waiting]

    async def connected(self) -> None:
        """Wait, without limit, until a broker of the cluster was reached. Raises `StagerClosed`."""
        await self._session.connected()

    async def partitions(self, topic: str) -> int:
        """The partition count of a topic, asking the cluster if it is not known yet; waits for a broker.

        Raises `UnknownTopicOrPartitionError`, `TopicAuthorizationFailedError` or `StagerClosed`.
        """
        return await self._session.partitions(topic)

    async def probe(self, topic: str, timeout_s: float) -> None:
        """Ask a broker now whether the topic is there.

        Raises `TimeoutError` where none answers in time, else as `partitions` does.
        """
        await self._session.probe(topic, timeout_s)

    async def check(self, topic: str, partition: int, timeout_s: float) -> None:
        """Ask the leader of a partition whether it would take records of ours; nothing is written.

        Raises `TimeoutError` where there is no answer in time, else the `KafkaError` that says why not.
        """
        async with asyncio.timeout(timeout_s):
            await self._session.connected()
            response = await self._session.send(
                self._session.leader(topic, partition), empty_request(topic, partition)
            )
        refusal_of(response)

    def known_partitions(self) -> dict[str, int]:
        """The partition counts in the metadata at hand; empty while no broker was reached."""
        return self._session.known_partitions()

    def _look_at(self, *lanes: Lane) -> None:
        self._changed.update(dict.fromkeys(lanes))
        self._wake.set()

    def _look_at_stalled(self) -> None:
        self._look_at(*self._stalled)
        self._stalled.clear()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            # We come a turn of the loop later: calls made in the same turn share a batch.
            self._wake.clear()
            try:
                self._dispatch(self._clock.monotonic())
            except Exception:
                log.exception("producer.failed -- it goes on; please report this")
                await asyncio.sleep(_PAUSE_AFTER_A_BUG_S)
                self._look_at(*self._busy)

    def _dispatch(self, now: float) -> None:
        """Send what can be sent of the lanes that changed or are due, and set the timer for what has to wait."""
        changed, self._changed = self._changed, {}
        changed.update(dict.fromkeys(self._agenda.due(now)))
        for lane in changed:
            self._look(lane, now)
        times = [self._agenda.next(), *(self._send_or_linger(node, now) for node in self._nodes.values())]
        self._set_timer(min((at for at in times if at is not None), default=None), now)
        if not self._busy:
            self._idle.set()

    def _look(self, lane: Lane, now: float) -> None:
        """Decide what a lane waits for: an answer, a time, the session, or a place in the next request."""
        if lane.deadline is not None:
            if now >= lane.deadline:
                lane.expire(now, lane.trouble or self.trouble or _too_late())
            if lane.deadline is not None:
                self._agenda.add(lane, lane.deadline)
        if not lane.waiting:
            self._busy.pop(lane, None)
        elif now < lane.retry_at:
            self._agenda.add(lane, lane.retry_at)
        elif not lane.in_flight:
            self._make_ready(lane, now)

    def _make_ready(self, lane: Lane, now: float) -> None:
        if not self._session.is_connected() or self._identity_of(lane) is None:
            self._stalled[lane] = None
            return
        try:
            leader = self._session.leader(lane.topic, lane.partition)
        except kafka_errors.KafkaError as error:
            lane.failed(error, now)
            self._agenda.add(lane, lane.retry_at)
            return
        node = self._nodes.get(leader)
        if node is None:
            node = self._nodes[leader] = Node(leader)
        node.add(lane, now)

    def _identity_of(self, lane: Lane) -> Identity | None:
        return lane.identity or self._session.identity(lane.spent)

    def _send_or_linger(self, node: Node, now: float) -> float | None:
        """Send now; or the time until which to wait for the request under way and for companions."""
        until = node.lingers_until(self._options.linger_s)
        if until is not None and now < until:
            return until
        while node.may_send():
            self._send(node, now)
        return None

    def _send(self, node: Node, now: float) -> None:
        batches = node.take(partial(self._prepare, int(self._clock.time() * 1000)), now)
        if batches:
            self._exchange.begin(node, batches)

    def _prepare(self, now_ms: int, lane: Lane) -> Batch | None:
        identity = self._identity_of(lane)
        if identity is None:  # it lost its place while it was waiting for its turn
            self._stalled[lane] = None
            return None
        try:
            return lane.prepare(identity, self._options.batch_bytes, self._options.compression, now_ms)
        except Unencodable as error:
            log.exception("producer.not_encoded topic=%s partition=%d", lane.topic, lane.partition)
            lane.refused(error, self._clock.monotonic())
            self._look_at(lane)
            return None

    def _set_timer(self, at: float | None, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, at - now), self._wake.set)


def _too_late() -> TimeoutError:
    return TimeoutError("not acknowledged within the delivery timeout")
