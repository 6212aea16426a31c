"""The direct way to the staging topic: a lane for each partition, and a backlog while there is no lane or no room.

Owns: order of entry, room (`MAX_BUFFERED_RECORDS`), learning the staging topic. Must not know: time limits,
the outbox. Nothing here awaits, so that tasks and threads are served alike.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from pipeline.client.call import Call
from pipeline.errors import StagerClosed
from pipeline.kafka.connection import staging_cluster
from pipeline.kafka.lane import Lane, Parcel
from pipeline.kafka.producer import Producer
from pipeline.kafka.topics import TopicKeeper, TopicSpecs
from pipeline.partition import partition_of
from pipeline.settings import Settings

__all__ = ["DirectPath"]


_REMEMBERED_KEYS = 65_536


class DirectPath:
    """Puts calls into lanes. `takes_another_way` is asked right before one that waited would enter its lane, and has
    taken the call where it answers true; `on_ready` is told once the staging topic is known, `on_failure` of calls
    that get no lane because it cannot be used."""

    def __init__(
        self,
        producer: Producer,
        settings: Settings,
        topic: str,
        *,
        takes_another_way: Callable[[Call], bool],
        on_ready: Callable[[], None],
        on_failure: Callable[[Call, BaseException], None],
    ) -> None:
        self.topic = topic
        self.lanes: list[Lane] = []
        """One for each partition; empty while the topic is not known."""
        self._producer = producer
        self._settings = settings
        self._most = settings.max_buffered_records
        self._takes_another_way = takes_another_way
        self._on_ready = on_ready
        self._on_failure = on_failure
        self.in_lanes = 0
        """Calls in lanes."""
        self._backlog: deque[Call] = deque()
        self._empty = asyncio.Event()
        self._learning: asyncio.Task[None] | None = None
        self._lane_of: dict[bytes, Lane] = {}
        """Keys whose hash is known: hashing costs as much as all else here."""

    @property
    def has_room(self) -> bool:
        """Whether a call can enter its lane now."""
        return bool(self.lanes) and self.in_lanes < self._most

    def lane_of(self, key: bytes) -> Lane | None:
        """The lane of a key; None while the topic is not known, which is then being learnt."""
        if not self.lanes:
            self.learn()
            return None
        lane = self._lane_of.get(key)
        if lane is None:
            if len(self._lane_of) >= _REMEMBERED_KEYS:
                self._lane_of.clear()
            lane = self._lane_of[key] = self.lanes[partition_of(key, len(self.lanes))]
        return lane

    def put(self, call: Call) -> None:
        """Into its lane, or behind those that wait for one. To be called where it takes no other way."""
        if self.in_lanes >= self._most or self._backlog or not self.lanes:
            self._backlog.append(call)
            if not self.lanes:
                self.learn()
        else:
            self._enter(call)

    def left_lane(self, count: int = 1) -> None:
        """The lanes of so many calls no longer hold them: there is room."""
        self.in_lanes -= count
        self.admit()

    def admit(self) -> None:
        """Let those that wait into their lanes while there is room."""
        while self._backlog and self.has_room:
            call = self._backlog.popleft()
            if not self._takes_another_way(call):
                self._enter(call)
        if not self.in_lanes and not self._backlog:
            self._empty.set()

    def take_back(self, call: Call) -> bool:
        """True where the event is certainly not on the topic and never will be."""
        if call.lane is None:
            with contextlib.suppress(ValueError):
                self._backlog.remove(call)
            self.admit()
            return True
        if not call.lane.withdraw(call):
            return False
        self.left_lane()
        return True

    def evict(self, lane: Lane | None) -> list[Call]:
        """Take all calls out of one lane, in order, or (None) out of the backlog; rows go back to the relay.

        Call `admit` when those calls are dealt with.
        """
        if lane is None:
            calls = list(self._backlog)
            self._backlog.clear()
            return calls
        parcels = self._producer.evict(lane)
        calls = [parcel for parcel in parcels if isinstance(parcel, Call)]
        self.in_lanes -= len(calls)
        for parcel in parcels:
            if not isinstance(parcel, Call):
                _give_back(parcel)
        return calls

    def what_holds_up(self, call: Call, limit: str) -> BaseException:
        """Why a call was not acknowledged; `limit` says within which time."""
        trouble = (call.lane.trouble if call.lane is not None else None) or self._producer.trouble
        if trouble is not None:
            return trouble
        if call.lane is not None:
            return TimeoutError(f"no acknowledgement {limit}")
        if self.lanes:
            return TimeoutError(
                f"no room {limit}: {self._most} (STREAMING_MAX_BUFFERED_RECORDS) wait for the broker"
            )
        return TimeoutError(f"no broker answered {limit}")

    def fail_backlog(self, error: BaseException) -> None:
        """Nothing that waits for a lane will get one."""
        for call in self.evict(None):
            self._on_failure(call, error)

    async def drain(self) -> None:
        """Wait until no call waits or is under way. Bound it with a timeout."""
        while self.in_lanes or self._backlog:
            self._empty.clear()
            await self._empty.wait()

    def learn(self) -> None:
        """Begin to learn the staging topic, unless that is under way."""
        if self._learning is None or self._learning.done():
            self._learning = asyncio.create_task(self._learn(), name="stagepost-staging-topic")
            self._learning.add_done_callback(self._learnt)

    async def learnt(self) -> None:
        """Wait for the attempt that is under way to end, however it ends."""
        if self._learning is not None:
            await asyncio.wait([self._learning])

    async def stop(self) -> None:
        """Stop learning, and fail what waits."""
        if self._learning is not None and not self._learning.done():
            self._learning.cancel()
            await asyncio.wait([self._learning])
        self.fail_backlog(StagerClosed("the stager was closed before the event was sent"))

    def _enter(self, call: Call) -> None:
        lane = call.lane = self._lane_of.get(call.key) or self.lane_of(call.key)
        assert lane is not None, "the topic is known where there is room"
        self.in_lanes += 1
        self._producer.put(lane, call)

    async def _learn(self) -> None:
        """Learn the partition count; create the topic where that is allowed and needed."""
        keeper = TopicKeeper(self._producer, staging_cluster(self._settings), self._settings)
        count = await keeper.partitions(TopicSpecs(self._settings).staging(self.topic), timeout_s=None)
        self._lane_of.clear()
        self.lanes = [self._producer.lane(self.topic, partition) for partition in range(count)]

    def _learnt(self, task: asyncio.Task[None]) -> None:
        error = StagerClosed() if task.cancelled() else task.exception()
        if error is None:
            self._on_ready()
            self.admit()
        else:
            self.fail_backlog(error)


def _give_back(parcel: Parcel) -> None:
    parcel.given_up(0, len(parcel.records), StagerClosed("the lane was emptied"))
