"""One Kafka cluster as the worker writes to it: a producer, what is known of its topics, creating the rest.

Owns: partition counts, learning and refreshing them, holding back what goes to a topic that is not known yet.
Must not know: what is written, or why.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Self

from aiokafka.errors import UnknownTopicOrPartitionError

from pipeline.clock import SYSTEM_CLOCK, Clock
from pipeline.errors import ErrorClass, StagerClosed, classify
from pipeline.kafka.connection import Connection
from pipeline.kafka.lane import Parcel
from pipeline.kafka.producer import Producer, ProducerOptions
from pipeline.kafka.topics import TopicKeeper, TopicSpec
from pipeline.record import OutRecord
from pipeline.settings import Settings

__all__ = ["Cluster"]

log = logging.getLogger(__name__)

_ATTEMPT_TIMEOUT_S = 10.0
_PAUSE_S = 1.0
_LOOK_S = 2.0


class _Written(Parcel):
    """One record that somebody waits for."""

    __slots__ = ("offset",)

    def __init__(self, record: OutRecord) -> None:
        super().__init__((record,))
        self.offset: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def acked(self, first: int, count: int, offset: int) -> None:  # noqa: ARG002 -- one record
        """It is on the topic."""
        if not self.offset.done():
            self.offset.set_result(offset)

    def refused(self, index: int, error: BaseException) -> None:  # noqa: ARG002
        """The broker will not take it."""
        if not self.offset.done():
            self.offset.set_exception(error)

    def given_up(self, first: int, count: int, error: BaseException) -> None:  # noqa: ARG002
        """The worker ends."""
        if not self.offset.done():
            self.offset.set_exception(error)


class Cluster:
    """A producer and the topics it writes to. Bound to one event loop."""

    def __init__(self, producer: Producer, keeper: TopicKeeper) -> None:
        self.producer = producer
        self.partitions: dict[str, int] = {}
        """The partition count of every topic known so far."""
        self._keeper = keeper
        self._learning: dict[str, asyncio.Task[None]] = {}
        self._held_back: defaultdict[str, list[tuple[int, Parcel]]] = defaultdict(list)
        self._specs: dict[str, TopicSpec] = {}
        """As each topic was first wanted."""
        self._made_anew: set[str] = set()
        """Topics that are created again where somebody deletes them."""
        self._looking: asyncio.TimerHandle | None = None

    @classmethod
    async def start(
        cls,
        connection: Connection,
        options: ProducerOptions,
        settings: Settings,
        clock: Clock = SYSTEM_CLOCK,
    ) -> Self:
        """A cluster with a producer of its own, which begins to connect. Does not wait for a broker."""
        producer = Producer(connection, options, clock)
        await producer.start()
        return cls(producer, TopicKeeper(producer, connection, settings))

    def put(self, topic: str, partition: int, parcel: Parcel) -> None:
        """Hand a parcel to the producer. Does not block."""
        self.producer.put(self.producer.lane(topic, partition), parcel)

    def put_when_known(self, spec: TopicSpec, hashed: int, parcel: Parcel) -> None:
        """The same for a topic that may have to be created first, also where somebody deletes it; order per topic is
        kept. Does not block."""
        self._specs.setdefault(spec.name, spec)
        self._made_anew.add(spec.name)
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(_LOOK_S, self._look)
        count = self.partitions.get(spec.name)
        if count is not None and spec.name not in self._held_back:
            self.put(spec.name, hashed % count, parcel)
            return
        self._held_back[spec.name].append((hashed, parcel))
        self.learn(spec, lambda: self._put_held_back(spec.name))

    async def write(self, spec: TopicSpec, hashed: int, record: OutRecord) -> tuple[int, int]:
        """Write one record and return its partition and offset once it is acknowledged; waits without limit.

        The topic is created where that is allowed. Raises what the broker refuses the record with, or
        `StagerClosed` where the worker ends first. Cancelled, it may still arrive.
        """
        written = _Written(record)
        self.put_when_known(spec, hashed, written)
        offset = await written.offset
        return hashed % self.partitions[spec.name], offset

    def learn(self, spec: TopicSpec, then: Callable[[], None]) -> None:
        """Learn a topic's partition count, creating it where that is allowed; then call `then`.

        Tries until it succeeds, with a warning that names the topic each time it does not. Does not block.
        """
        task = self._learning.get(spec.name)
        if task is None:
            task = self._learning[spec.name] = asyncio.create_task(
                self._learn(spec), name=f"learn {spec.name}"
            )
        task.add_done_callback(lambda done: None if done.cancelled() else then())

    async def know(self, spec: TopicSpec) -> int:
        """The partition count of a topic, created where that is allowed; waits for a broker without limit."""
        self._specs.setdefault(spec.name, spec)
        count = self.partitions[spec.name] = await self._keeper.partitions(spec, timeout_s=None)
        return count

    def know_existing(self, topics: Iterable[str]) -> None:
        """Take the counts of those topics that are in the cluster's metadata; forget those that are not."""
        found = self.producer.known_partitions()
        for topic in topics:
            count = found.get(topic)
            if count is not None:
                self.partitions[topic] = count
            elif found:
                self.partitions.pop(topic, None)

    async def know_again(self, spec: TopicSpec, timeout_s: float) -> int:
        """The partition count as the cluster says it now, created where that is allowed.

        Raises `TimeoutError`, `MissingTopics` or a `KafkaError` that says why it is not known.
        """
        with contextlib.suppress(UnknownTopicOrPartitionError):
            await self.producer.probe(spec.name, timeout_s)
        count = self.partitions[spec.name] = await self._keeper.partitions(spec, timeout_s=timeout_s)
        return count

    def evict(self, topic: str) -> list[Parcel]:
        """Take everything for a topic out of its lanes, each lane's in order. What is being sent may still arrive."""
        return [
            parcel
            for lane in self.producer.busy_lanes()
            if lane.topic == topic
            for parcel in self.producer.evict(lane)
        ]

    def withdraw(self, parcels: set[Parcel]) -> None:
        """Take back what is not on its topic yet. What is being sent right now may still arrive."""
        for topic, waiting in list(self._held_back.items()):
            self._held_back[topic] = [item for item in waiting if item[1] not in parcels]
        self.producer.withdraw(parcels)

    async def close(self, timeout_s: float) -> None:
        """Send what waits for at most `timeout_s`, close. What waits for its topic is given up at once."""
        if self._looking is not None:
            self._looking.cancel()
        for task in self._learning.values():
            task.cancel()
        if self._learning:
            await asyncio.wait(self._learning.values(), timeout=1.0)
        for waiting in self._held_back.values():
            for _, parcel in waiting:
                parcel.given_up(0, len(parcel.records), StagerClosed("its topic was not known in time"))
        self._held_back.clear()
        await self.producer.close(timeout_s)

    def _look(self) -> None:
        """Create what was deleted: else what waits for it waits until somebody does."""
        lanes = [lane for lane in self.producer.busy_lanes() if lane.topic in self._made_anew]
        for lane in lanes:
            if lane.trouble is not None and classify(lane.trouble) is ErrorClass.TOPIC_NOT_FOUND:
                self.learn(self._specs[lane.topic], lambda: None)
        more = bool(lanes or self._held_back)
        self._looking = asyncio.get_running_loop().call_later(_LOOK_S, self._look) if more else None

    async def _learn(self, spec: TopicSpec) -> None:
        while True:
            try:
                self.partitions[spec.name] = await self._keeper.partitions(spec, timeout_s=_ATTEMPT_TIMEOUT_S)
            except Exception as error:  # noqa: BLE001 -- whatever it is: parcels wait for this, so it is tried again
                cause = self.producer.trouble or str(error) or type(error).__name__
                log.warning("topics.unusable topic=%s reason=%r", spec.name, cause)
                await asyncio.sleep(_PAUSE_S)
            else:
                del self._learning[spec.name]
                return

    def _put_held_back(self, topic: str) -> None:
        count = self.partitions[topic]
        for hashed, parcel in self._held_back.pop(topic, ()):
            self.put(topic, hashed % count, parcel)
