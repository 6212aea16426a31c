"""The real stager: from a checked event to an acknowledgement by the staging topic.

Owns: order and room, the caller's time limit, the health probe.
Must not know: the worker, targets, how batches are made (`pipeline.kafka`).

Every call goes through `_accept`: into the lane of its partition or, while the staging topic is not known or
too many records wait, into the backlog first. Nothing in it awaits, so that it serves tasks and threads alike.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections import deque
from datetime import datetime

from aiokafka.errors import KafkaError

from catalog import Catalog, OwnTopics
from pipeline.client.call import Call, failure_of
from pipeline.client.event import Event, EventChecker
from pipeline.client.stager import Stager, load_catalog
from pipeline.clock import SYSTEM_CLOCK, Clock
from pipeline.errors import ErrorClass, StagerClosed, StagingUnavailable
from pipeline.kafka.connection import staging_cluster
from pipeline.kafka.lane import Lane
from pipeline.kafka.producer import Producer, ProducerOptions
from pipeline.kafka.topics import TopicKeeper, TopicSpecs
from pipeline.partition import partition_of
from pipeline.settings import Settings
from pipeline.types import ExtraHeaders, Health, Payload, PolicyArgument, Staged

__all__ = ["KafkaStager"]

_LOOP_GRACE_S = 1.0
"""How much longer than `STAGE_TIMEOUT_S` a thread waits for an event loop that does not get round to it."""
_RECENT_S = 60.0


class KafkaStager(Stager):
    """Stages to `<namespace>.staging` with acks=all, idempotent; concurrent calls share record batches."""

    def __init__(
        self, settings: Settings, *, catalog: Catalog | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        super().__init__(settings, catalog=catalog, clock=clock)
        self._topic = OwnTopics(settings.namespace).staging
        self._lanes: list[Lane] = []
        """One for each partition; empty while the topic is not known."""
        self._in_lanes = 0
        self._backlog: deque[Call] = deque()
        self._backlog_gone = asyncio.Event()
        self._inbox: deque[Call] = deque()
        self._inbox_posted = False
        self._undecided: deque[Call] = deque()
        """In the order of their time limits; decided ones are removed when they come to the front."""
        self._timer: asyncio.TimerHandle | None = None
        self._preparing: asyncio.Task[None] | None = None
        self._failure: tuple[float, BaseException] | None = None
        """When and why an event could not be staged, if none was since."""

    async def start(self) -> None:
        """Load the catalog and begin to connect. Does not wait for a broker. Raises `CatalogError`."""
        if self._loop is not None:
            return
        catalog = self._given_catalog or load_catalog(self._settings)
        settings = self._settings
        self._checker = EventChecker(catalog, settings, self._clock)
        options = ProducerOptions(
            settings.batch_linger_ms / 1000, settings.batch_max_bytes, settings.compression
        )
        self._producer = Producer(staging_cluster(settings), options, self._clock)
        await self._producer.start()
        await super().start()
        self._prepare()

    async def close(self) -> None:
        """Wait for what is under way, at most `CLOSE_TIMEOUT_S`; then fail the rest and let go of the broker."""
        if self._closed:
            return
        self._closed = True
        if self._loop is None:
            return
        limit = self._clock.monotonic() + self._settings.close_timeout_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.close_timeout_s):
                if self._backlog:
                    self._backlog_gone.clear()
                    await self._backlog_gone.wait()
                if self._preparing is not None and not self._preparing.done():
                    self._preparing.cancel()
                    await asyncio.wait([self._preparing])
        self._fail_backlog(StagerClosed("the stager was closed before the event was sent"))
        await self._producer.close(max(0.0, limit - self._clock.monotonic()))
        if self._timer is not None:
            self._timer.cancel()

    async def stage(
        self,
        key: str,
        payload: Payload,
        *,
        tenant: str | None = None,
        subject: str | None = None,
        id: str | None = None,  # noqa: A002 -- the CloudEvents name
        time: datetime | None = None,
        policy: PolicyArgument = None,
        headers: ExtraHeaders | None = None,
    ) -> Staged:
        """See `Stager.stage`: returns once the staging topic has acknowledged the event."""
        loop = self._own_loop()
        event = self._checker.check(
            key, payload, tenant=tenant, subject=subject, id=id, time=time, policy=policy, headers=headers
        )
        _refuse_what_needs_an_outbox(event)
        outcome: asyncio.Future[Staged] = loop.create_future()
        call = Call(event, outcome, self._left_lane)
        self._accept(call)
        try:
            return await outcome
        except asyncio.CancelledError:
            if outcome.cancelled():
                self._take_back(call)
            raise

    def stage_blocking(
        self,
        key: str,
        payload: Payload,
        *,
        tenant: str | None = None,
        subject: str | None = None,
        id: str | None = None,  # noqa: A002 -- the CloudEvents name
        time: datetime | None = None,
        policy: PolicyArgument = None,
        headers: ExtraHeaders | None = None,
    ) -> Staged:
        """See `Stager.stage_blocking`."""
        loop = self._loop_of_another_thread()
        event = self._checker.check(
            key, payload, tenant=tenant, subject=subject, id=id, time=time, policy=policy, headers=headers
        )
        _refuse_what_needs_an_outbox(event)
        outcome: concurrent.futures.Future[Staged] = concurrent.futures.Future()
        call = Call(event, outcome, self._left_lane)
        self._post(call, loop)
        try:
            return outcome.result(self._settings.stage_timeout_s + _LOOP_GRACE_S)
        except TimeoutError:
            reason = "the stager's event loop is too busy to answer"
            raise StagingUnavailable(event.id, ErrorClass.NETWORK_TIMEOUT, reason, unknown=True) from None

    async def health(self) -> Health:
        """Asks a broker for the staging topic's metadata."""
        try:
            self._own_loop()
        except StagerClosed as error:
            return Health("down", str(error))
        limit = self._settings.stage_timeout_s
        try:
            async with asyncio.timeout(limit):
                if self._preparing is not None:
                    await asyncio.wait([self._preparing])
                await self._producer.probe(self._topic, limit)
        except (KafkaError, OSError, TimeoutError) as error:
            cause = self._producer.trouble or error
            reason = str(cause) or f"no broker answered within {limit:g} s"
            return Health("down", f"the staging topic {self._topic} cannot be used: {reason}")
        trouble = self._recent_trouble()
        return (
            Health("healthy") if trouble is None else Health("degraded", f"staging is failing: {trouble!r}")
        )

    def _recent_trouble(self) -> BaseException | None:
        for lane in self._producer.troubled_lanes():
            return lane.trouble
        if self._failure is not None and self._clock.monotonic() - self._failure[0] < _RECENT_S:
            return self._failure[1]
        return None

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        self._check_usable()
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            raise StagerClosed(
                "the stager belongs to another event loop: open one on this one, or call stage_blocking()"
            )
        return loop

    # --- on the event loop: what becomes of a call

    def _accept(self, call: Call) -> None:
        if self._closed:
            call.fail(StagerClosed())
            return
        now = self._clock.monotonic()
        call.due = now + self._settings.stage_timeout_s
        call.deadline = now + self._settings.record_delivery_timeout_s
        while self._undecided and self._undecided[0].outcome.done():
            self._undecided.popleft()
        self._undecided.append(call)
        if self._timer is None:
            self._set_timer(now)
        if self._lanes and not self._backlog and self._in_lanes < self._settings.max_buffered_records:
            self._send(call)
        else:
            self._backlog.append(call)
            if not self._lanes:
                self._prepare()

    def _send(self, call: Call) -> None:
        key = call.records[0][0]
        assert key is not None
        lane = call.lane = self._lanes[partition_of(key, len(self._lanes))]
        self._in_lanes += 1
        self._producer.put(lane, call)

    def _left_lane(self, failure: Exception | None) -> None:
        self._in_lanes -= 1
        self._failure = (self._clock.monotonic(), failure) if failure is not None else None
        if self._backlog:
            self._admit_backlog()

    def _admit_backlog(self) -> None:
        room = self._settings.max_buffered_records
        while self._backlog and self._lanes and self._in_lanes < room:
            self._send(self._backlog.popleft())
        if not self._backlog:
            self._backlog_gone.set()

    def _fail_backlog(self, error: BaseException) -> None:
        while self._backlog:
            call = self._backlog.popleft()
            call.fail(failure_of(call.event_id, error, unknown=False))
        self._backlog_gone.set()

    def _take_back(self, call: Call) -> bool:
        """True where the event is certainly not on the topic and never will be."""
        if call.lane is None:
            if call in self._backlog:
                self._backlog.remove(call)
                self._admit_backlog()
            return True
        if not call.lane.withdraw(call):
            return False
        self._in_lanes -= 1
        if self._backlog:
            self._admit_backlog()
        return True

    # --- the time limit of S7: one timer for all calls

    def _set_timer(self, now: float) -> None:
        assert self._loop is not None
        self._timer = None
        if self._undecided:
            delay = max(0.0, self._undecided[0].due - now)
            self._timer = self._loop.call_later(delay, self._decide_overdue)

    def _decide_overdue(self) -> None:
        now = self._clock.monotonic()
        while self._undecided and (self._undecided[0].outcome.done() or self._undecided[0].due <= now):
            call = self._undecided.popleft()
            if not call.outcome.done():
                cause = self._why_overdue(call)
                failure = failure_of(call.event_id, cause, unknown=not self._take_back(call))
                self._failure = (now, cause)
                call.fail(failure)
        self._set_timer(now)

    def _why_overdue(self, call: Call) -> BaseException:
        trouble = (call.lane.trouble if call.lane is not None else None) or self._producer.trouble
        if trouble is not None:
            return trouble
        limit = f"within {self._settings.stage_timeout_s:g} s (STREAMING_STAGE_TIMEOUT_S)"
        if call.lane is not None:
            return TimeoutError(f"no acknowledgement {limit}")
        if self._lanes:
            count = self._settings.max_buffered_records
            return TimeoutError(
                f"no room {limit}: {count} (STREAMING_MAX_BUFFERED_RECORDS) wait for the broker"
            )
        return TimeoutError(f"no broker answered {limit}")

    # --- the staging topic

    def _prepare(self) -> None:
        if self._preparing is None or self._preparing.done():
            self._preparing = asyncio.create_task(self._learn_topic(), name="stagepost-staging-topic")
            self._preparing.add_done_callback(self._prepared)

    async def _learn_topic(self) -> None:
        """Learn the staging topic's partition count; create the topic where that is allowed and needed."""
        keeper = TopicKeeper(self._producer, staging_cluster(self._settings), self._settings)
        count = await keeper.partitions(TopicSpecs(self._settings).staging(self._topic), timeout_s=None)
        self._lanes = [self._producer.lane(self._topic, partition) for partition in range(count)]

    def _prepared(self, task: asyncio.Task[None]) -> None:
        error = StagerClosed() if task.cancelled() else task.exception()
        if error is None:
            self._admit_backlog()
        else:
            self._fail_backlog(error)

    # --- from other threads

    def _post(self, call: Call, loop: asyncio.AbstractEventLoop) -> None:
        """Hand a call to the event loop. Calls that come while it is about to look share one wake-up."""
        self._inbox.append(call)
        if not self._inbox_posted:
            self._inbox_posted = True
            try:
                loop.call_soon_threadsafe(self._take_inbox)
            except RuntimeError as error:
                raise StagerClosed("the stager's event loop is closed: open a new stager") from error

    def _take_inbox(self) -> None:
        self._inbox_posted = False  # first: what is appended from here on posts again
        while self._inbox:
            self._accept(self._inbox.popleft())


def _refuse_what_needs_an_outbox(event: Event) -> None:
    if event.policy.outbox == "always":
        reason = "outbox=always needs an outbox, which is not configured"
        raise StagingUnavailable(event.id, ErrorClass.BROKER_UNAVAILABLE, reason, unknown=False)
