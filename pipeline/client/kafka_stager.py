"""The real stager: from a checked event to an acknowledgement by the staging topic.

Owns: one parcel per call, the caller's time limit, back-pressure, the health probe.
Must not know: the worker, targets, how batches are made (`pipeline.kafka`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import datetime

from aiokafka.errors import KafkaError

from catalog import Catalog, OwnTopics
from pipeline.client.event import Event, EventChecker
from pipeline.client.stager import Stager, load_catalog
from pipeline.clock import SYSTEM_CLOCK, Clock
from pipeline.errors import (
    ErrorClass,
    MissingTopics,
    StagerClosed,
    StagingRefused,
    StagingUnavailable,
    classify,
)
from pipeline.kafka.connection import staging_cluster
from pipeline.kafka.encoding import OutRecord
from pipeline.kafka.lane import Lane, Parcel
from pipeline.kafka.producer import Producer, ProducerOptions
from pipeline.kafka.topics import TopicKeeper, TopicSpecs
from pipeline.partition import partition_of
from pipeline.settings import Settings
from pipeline.types import ExtraHeaders, Health, Payload, PolicyArgument, Staged

__all__ = ["KafkaStager"]

_REFUSED = frozenset({ErrorClass.AUTH, ErrorClass.TOPIC_NOT_FOUND})


class _Call(Parcel):
    """One event on its way, and the future its caller awaits."""

    __slots__ = ("done", "event_id", "lane")

    def __init__(
        self, record: OutRecord, event_id: str, deadline: float, lane: Lane, done: asyncio.Future[Staged]
    ):
        super().__init__((record,), deadline)
        self.event_id = event_id
        self.lane = lane
        self.done = done

    def acked(self, first: int, count: int, offset: int) -> None:  # noqa: ARG002 -- one record
        """The event is durable."""
        if not self.done.done():
            self.done.set_result(Staged(self.event_id, "topic", self.lane.topic, self.lane.partition, offset))

    def refused(self, index: int, error: BaseException) -> None:  # noqa: ARG002
        """The broker will never take it: a caller error, for its cause is one."""
        refusal = StagingRefused(self.event_id, classify(error), str(error))
        refusal.__cause__ = error
        self._fail(refusal)

    def given_up(self, first: int, count: int, error: BaseException) -> None:  # noqa: ARG002
        """The delivery deadline passed, or the stager closed."""
        self._fail(failure_of(self.event_id, error, unknown=self.taken > 0))

    def _fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


def failure_of(event_id: str, error: BaseException, *, unknown: bool) -> Exception:
    """The error a caller sees for an event that is not staged: a refusal where the broker said no for good."""
    error_class = classify(error)
    if error_class in _REFUSED and not unknown:
        failure: Exception = StagingRefused(event_id, error_class, str(error))
    else:
        failure = StagingUnavailable(
            event_id, error_class, str(error) or type(error).__name__, unknown=unknown
        )
    failure.__cause__ = error
    return failure


class KafkaStager(Stager):
    """Stages to `<namespace>.staging` with acks=all, idempotent; concurrent calls share record batches."""

    def __init__(
        self, settings: Settings, *, catalog: Catalog | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        super().__init__(settings, catalog=catalog, clock=clock)
        self._topic = OwnTopics(settings.namespace).staging
        self._lanes: list[Lane] = []
        self._preparing: asyncio.Task[None] | None = None
        self._timeouts: deque[tuple[float, _Call]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._room = asyncio.Event()
        self._waiting = 0

    async def start(self) -> None:
        """Load the catalog and begin to connect. Does not wait for a broker. Raises `CatalogError`."""
        if self._loop is not None:
            return
        catalog = self._given_catalog or load_catalog(self._settings)
        await super().start()
        settings = self._settings
        self._checker = EventChecker(catalog, settings, self._clock)
        options = ProducerOptions(
            settings.batch_linger_ms / 1000, settings.batch_max_bytes, settings.compression
        )
        self._producer = Producer(staging_cluster(settings), options, self._clock)
        await self._producer.start()
        self._start_preparing()

    async def close(self) -> None:
        """Wait for what is under way, at most `CLOSE_TIMEOUT_S`; then fail the rest and let go of the broker."""
        if self._closed:
            return
        self._closed = True
        if self._loop is None:
            return
        if self._preparing is not None:
            self._preparing.cancel()
            await asyncio.wait([self._preparing])
        await self._producer.close(self._settings.close_timeout_s)
        if self._timer is not None:
            self._timer.cancel()
        self._room.set()

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
        self._check_usable()
        event = self._checker.check(
            key, payload, tenant=tenant, subject=subject, id=id, time=time, policy=policy, headers=headers
        )
        if event.policy.outbox == "always":
            raise StagingUnavailable(
                event.id,
                ErrorClass.BROKER_UNAVAILABLE,
                "outbox=always needs an outbox, which is not configured",
                unknown=False,
            )
        now = self._clock.monotonic()
        if not self._lanes or self._waiting >= self._settings.max_buffered_records:
            await self._wait_until_ready(event, now + self._settings.stage_timeout_s)
        call = self._send(event, now)
        try:
            return await call.done
        except asyncio.CancelledError:
            call.lane.withdraw(call)
            raise
        finally:
            self._waiting -= 1
            self._room.set()

    async def health(self) -> Health:
        """Asks a broker for the staging topic's metadata."""
        limit = self._settings.stage_timeout_s
        try:
            self._check_usable()
            await self._producer.probe(self._topic, limit)
        except (KafkaError, OSError, TimeoutError, StagerClosed) as error:
            cause = str(error) or type(error).__name__
            return Health("down", f"the staging topic {self._topic} cannot be reached within {limit:g} s: {cause}")
        trouble = next((lane.trouble for lane in self._producer.troubled_lanes()), None)
        return Health("degraded", f"staging is failing: {trouble}") if trouble else Health("healthy")

    def _send(self, event: Event, now: float) -> _Call:
        assert self._loop is not None
        lane = self._lanes[partition_of(event.key, len(self._lanes))]
        record = (event.key, event.value, event.headers)
        deadline = now + self._settings.record_delivery_timeout_s
        call = _Call(record, event.id, deadline, lane, self._loop.create_future())
        self._waiting += 1
        self._producer.put(lane, call)
        self._timeouts.append((now + self._settings.stage_timeout_s, call))
        if self._timer is None:
            self._timer = self._loop.call_later(self._settings.stage_timeout_s, self._check_timeouts)
        return call

    def _check_timeouts(self) -> None:
        """One timer for all calls: they time out in the order they were made."""
        assert self._loop is not None
        now = self._clock.monotonic()
        while self._timeouts and (self._timeouts[0][1].done.done() or self._timeouts[0][0] <= now):
            _, call = self._timeouts.popleft()
            if not call.done.done():
                unknown = not call.lane.withdraw(call)
                late = TimeoutError(f"no acknowledgement within {self._settings.stage_timeout_s:g} s")
                cause = call.lane.trouble or self._producer.trouble or late
                call.done.set_exception(failure_of(call.event_id, cause, unknown=unknown))
        self._timer = None
        if self._timeouts:
            self._timer = self._loop.call_later(max(0.0, self._timeouts[0][0] - now), self._check_timeouts)

    async def _wait_until_ready(self, event: Event, deadline: float) -> None:
        """Wait for the staging topic to be known and for room in the buffer."""
        try:
            async with asyncio.timeout(max(0.0, deadline - self._clock.monotonic())):
                if not self._lanes:
                    assert self._preparing is not None
                    await asyncio.shield(self._preparing)
                while self._waiting >= self._settings.max_buffered_records:
                    self._room.clear()
                    await self._room.wait()
                    self._check_usable()
        except TimeoutError as error:
            cause = self._producer.trouble or TimeoutError(
                "no room: MAX_BUFFERED_RECORDS wait for the broker"
            )
            raise failure_of(event.id, cause, unknown=False) from error
        except (KafkaError, MissingTopics) as error:
            self._prepare_again()
            raise failure_of(event.id, error, unknown=False) from error

    def _prepare_again(self) -> None:
        if self._preparing is not None and self._preparing.done() and not self._closed:
            self._start_preparing()

    def _start_preparing(self) -> None:
        self._preparing = asyncio.create_task(self._prepare(), name="stagepost-staging-topic")
        # Its failure reaches whoever waits in stage(); without a caller it must not be reported as unseen.
        self._preparing.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _prepare(self) -> None:
        """Learn the staging topic's partition count; create the topic where that is allowed and needed."""
        keeper = TopicKeeper(self._producer, staging_cluster(self._settings), self._settings)
        count = await keeper.partitions(TopicSpecs(self._settings).staging(self._topic), timeout_s=None)
        self._lanes = [self._producer.lane(self._topic, partition) for partition in range(count)]
