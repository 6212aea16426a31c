"""The real stager: from a checked event to the staging topic, or to the outbox where that cannot be reached.

Owns: the caller's time limit (S7), the life of the parts, the health probe. Must not know: the worker,
targets, how batches are made (`pipeline.kafka`), how rows are stored (`pipeline.outbox`).

Every call goes through `_accept`. Nothing in it awaits, so that it serves tasks and threads alike.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime
from threading import get_ident

from catalog import Catalog, OwnTopics
from pipeline.client.acks import Acks
from pipeline.client.call import Answer, Call, call_of, failure_of
from pipeline.client.deadlines import Deadlines
from pipeline.client.direct import DirectPath
from pipeline.client.event import EventChecker
from pipeline.client.fallback import DIRECT_SHARE, Fallback
from pipeline.client.inbox import Inbox
from pipeline.client.metering import StageMeter
from pipeline.client.other_way import NoFallback, OtherWay, check_no_outbox_is_needed
from pipeline.client.probe import broker_health, of_both_ways, outbox_health
from pipeline.client.relay import Relay
from pipeline.client.stager import Stager, load_catalog
from pipeline.clock import SYSTEM_CLOCK, Clock
from pipeline.errors import ErrorClass, StagerClosed, StagingUnavailable
from pipeline.kafka.connection import staging_cluster
from pipeline.kafka.producer import Producer, ProducerOptions
from pipeline.outbox.protocol import Outbox, Turn
from pipeline.outbox.row import decode
from pipeline.settings import Settings
from pipeline.tracing import stage_spans
from pipeline.types import ExtraHeaders, Health, Payload, PolicyArgument, Prepared, Shipped, Staged

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
        self._inbox = Inbox(self._accept)
        self._meter = StageMeter(clock)
        self._failure: tuple[float, BaseException] | None = None
        """When and why an event could not be staged, if none was since."""

    async def start(self) -> None:
        """Load the catalog, open the outbox, begin to connect. Does not wait for a broker, nor for room on the disk
        where there is no outbox yet.

        Raises `CatalogError`, `OutboxUnavailable`, and `SettingsError` where there must be an outbox and is none.
        """
        if self._loop is not None:
            return
        settings = self._settings
        catalog = self._given_catalog if self._given_catalog is not None else load_catalog(settings)
        if not settings.outbox_dir:
            check_no_outbox_is_needed(catalog)
        self._checker = EventChecker(catalog, settings, self._clock, stage_spans())
        linger_s = settings.batch_linger_ms / 1000
        options = ProducerOptions(linger_s, settings.batch_max_bytes, settings.compression)
        self._producer = Producer(staging_cluster(settings), options, self._clock)
        self._fallback: OtherWay = (
            Fallback(settings, self._clock, self._meter) if settings.outbox_dir else NoFallback()
        )
        self._direct = DirectPath(
            self._producer,
            settings,
            OwnTopics(settings.namespace).staging,
            takes_another_way=self._fallback.takes,
            on_ready=self._fallback.wake,
            on_failure=self._fallback.failed,
        )
        self._acks = Acks(self._acked)
        await self._fallback.start(self._direct, lambda outbox: self._relay_of(outbox, outbox))
        direct_s = settings.stage_timeout_s * DIRECT_SHARE
        self._direct_limit = Deadlines(direct_s, self._clock, self._overdue)
        self._last_limit = Deadlines(settings.stage_timeout_s - direct_s, self._clock, self._too_late)
        await self._producer.start()
        self._meter.start(lambda: self._fallback.breaker.state, self._fallback.waiting_now)
        await super().start()
        self._direct.learn()

    async def close(self) -> None:
        """Wait for what is under way, at most `CLOSE_TIMEOUT_S`; what is then left goes to the outbox."""
        if self._closed:
            return
        self._closed = True
        self._meter.close()
        if self._loop is None:
            return
        limit = self._clock.monotonic() + self._settings.close_timeout_s
        if self._producer.is_running:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.close_timeout_s * DIRECT_SHARE):
                    await self._direct.drain()
                    await self._fallback.settle()
        in_time = await self._fallback.close(max(0.0, limit - self._clock.monotonic()))
        await self._direct.stop()
        await self._producer.close(max(0.0, limit - self._clock.monotonic()))
        if in_time:  # else callers who still wait hear of that when their time is up
            self._direct_limit.stop()
            self._last_limit.stop()
        self._inbox.close()

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
        outcome: asyncio.Future[Staged] = loop.create_future()
        call = call_of(event, outcome, self._left_lane)
        self._accept(call)
        try:
            return await outcome
        except asyncio.CancelledError as cancelled:
            if outcome.cancelled():
                if not self._direct.take_back(call):
                    self._fallback.deserted(call)
                call.end_span(cancelled)
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
        outcome = Answer()
        call = call_of(event, outcome, self._left_lane)
        self._inbox.post(call, loop)
        try:
            return outcome.wait(self._settings.stage_timeout_s + _LOOP_GRACE_S)
        except TimeoutError:
            reason = "the stager's event loop is too busy to answer"
            raise StagingUnavailable(event.id, ErrorClass.NETWORK_TIMEOUT, reason, unknown=True) from None

    def prepare(
        self,
        key: str,
        payload: Payload,
        *,
        tenant: str | None = None,
        subject: str | None = None,
        id: str | None = None,  # noqa: A002 -- the CloudEvents name
        time: datetime | None = None,
        headers: ExtraHeaders | None = None,
    ) -> Prepared:
        """See `Stager.prepare`."""
        self._check_usable()
        event = self._checker.check(
            key, payload, tenant=tenant, subject=subject, id=id, time=time, headers=headers
        )
        if event.span is not None:
            event.span.end()
        return Prepared(event.id, event.row())

    async def relay(self, row: bytes) -> Staged:
        """See `Stager.relay`."""
        loop = self._own_loop()
        outcome: asyncio.Future[Staged] = loop.create_future()
        # outbox=never: the row has its place in the application's table and needs no second one.
        given = decode(row)
        self._accept(Call(given.id, given.key, given.packed, "never", outcome, self._left_lane))
        return await outcome

    async def ship(self, outbox: Outbox) -> Shipped:
        """See `Stager.ship`."""
        self._own_loop()
        relay = self._relay_of(outbox)
        relay.start()
        try:
            return await relay.until_empty()
        finally:
            await relay.stop()

    async def drain_outbox(self) -> None:
        """Wait, without limit, until no row waits, in this process's slot or in one that a dead process left."""
        self._own_loop()
        await self._fallback.drained()

    async def health(self) -> Health:
        """Asks a broker for the staging topic's metadata, and the outbox for what waits in it."""
        try:
            self._own_loop()
        except StagerClosed as error:
            return Health("down", str(error))
        limit = self._settings.stage_timeout_s
        of_broker = broker_health(self._direct, self._producer, limit, self._recent_trouble)
        if not self._fallback.exists:
            return await of_broker
        return of_both_ways(*await asyncio.gather(of_broker, outbox_health(self._fallback, limit)))

    def _recent_trouble(self) -> BaseException | None:
        for lane in self._producer.troubled_lanes():
            return lane.trouble
        if self._failure is not None and self._clock.monotonic() - self._failure[0] < _RECENT_S:
            return self._failure[1]
        return None

    def _relay_of(self, outbox: Outbox, turn: Turn | None = None) -> Relay:
        return Relay(
            outbox,
            self._producer,
            self._fallback.breaker,
            self._clock,
            topic=self._direct.topic,
            lane_of=self._direct.lane_of,
            probe_timeout_s=self._settings.stage_timeout_s,
            turn=turn,
        )

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        self._check_usable()
        loop = self._loop
        # A thread runs one loop at a time. To ask which one costs a system call in Python 3.11.
        if loop is None or self._thread != get_ident() or not loop.is_running():
            raise StagerClosed(
                "the stager belongs to another event loop: open one here or call stage_blocking()"
            )
        return loop

    def _accept(self, call: Call) -> None:
        if self._closed:
            call.fail(StagerClosed())
            return
        call.meter, call.acks = self._meter, self._acks
        now = call.begun = self._clock.monotonic()
        call.deadline = now + self._settings.record_delivery_timeout_s
        if not self._fallback.takes(call):
            self._direct.put(call)
        self._direct_limit.add(call, now)  # last: what it does in the next turn comes behind the sending

    def _acked(self, begun: list[float]) -> None:
        self._failure = None
        self._fallback.succeeded(len(begun))
        self._meter.staged("topic", *begun)
        self._direct.left_lane(len(begun))

    def _left_lane(self, failure: Exception | None) -> None:
        if failure is None:
            self._failure = None
            self._fallback.succeeded(1)
        else:
            self._failure = (self._clock.monotonic(), failure)
        self._direct.left_lane()

    def _overdue(self, call: Call) -> None:
        """The direct way took too long: the other way, where the call may go there."""
        self._last_limit.add(call, self._clock.monotonic())
        if call.outbox != "never" and not call.stored:
            self._fallback.overdue(call, self._why_overdue(call))

    def _too_late(self, call: Call) -> None:
        """No way led anywhere in time: the truth as it stands."""
        cause = self._why_overdue(call)
        self._failure = (self._clock.monotonic(), cause)
        unknown = call.stored or not self._direct.take_back(call)
        if call.outbox == "never":
            self._fallback.gave_up(call, cause)
        call.fail(failure_of(call.event_id, cause, unknown=unknown))

    def _why_overdue(self, call: Call) -> BaseException:
        limit = f"within {self._settings.stage_timeout_s:g} s (STREAMING_STAGE_TIMEOUT_S)"
        if call.stored:
            return TimeoutError(f"the outbox has not answered {limit}")
        return self._direct.what_holds_up(call, limit)
