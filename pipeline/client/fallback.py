"""What happens to an event that cannot go to the broker: the outbox, the breaker before it, the relay behind it.

Owns: when an event becomes a row (S6, D6), the service's breaker (B), starting and ending relay and adoption.
Must not know: how rows are stored, lanes beyond emptying them, time limits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from pipeline.breaker import Breaker, BreakerPolicy
from pipeline.client.adoption import Adoption
from pipeline.client.call import Call, failure_of
from pipeline.client.direct import DirectPath
from pipeline.client.metering import StageMeter
from pipeline.client.probe import of_outbox
from pipeline.client.relay import Relay
from pipeline.clock import Clock
from pipeline.kafka.lane import Lane
from pipeline.outbox.errors import NoRoomForOutbox, OutboxUnavailable
from pipeline.outbox.process import ProcessOutbox
from pipeline.outbox.protocol import Waiting
from pipeline.outbox.row import encode
from pipeline.outbox.sharing import let_go, shared
from pipeline.outbox.telling import Listener, Told
from pipeline.settings import Settings
from pipeline.types import Health, Staged

__all__ = ["DIRECT_SHARE", "Fallback"]

log = logging.getLogger(__name__)

_LOOK_S = 0.2
_ROOM_AGAIN_S = 1.0
DIRECT_SHARE = 0.75
"""Of `STAGE_TIMEOUT_S`: how long the direct way may take; the rest is for the outbox."""


class Fallback:
    """The other way for the events of one stager. Bound to its event loop; the outbox is the process's."""

    exists = True

    def __init__(self, settings: Settings, clock: Clock, meter: StageMeter) -> None:
        self._settings = settings
        self._directory = Path(
            settings.outbox_dir
        ).absolute()  # a program may go elsewhere: the rows stay here
        self._clock = clock
        self._meter = meter
        self.breaker = Breaker(
            BreakerPolicy(settings.cb_failure_ratio, settings.cb_min_requests, settings.cb_timeout_s)
        )
        self._outbox: ProcessOutbox | None = None
        """None before the start, after the end, and while there is no room to make it."""
        self._no_outbox: OutboxUnavailable | None = None
        """Why there is none yet."""
        self._making: asyncio.Task[None] | None = None
        self._relay: Relay | None = None
        self._storing = 0
        self._all_stored = asyncio.Event()
        self._deserted: defaultdict[bytes, list[Call]] = defaultdict(list)
        """By key: calls in lanes that may be on the topic or not, and whose callers have gone on."""

    async def start(self, direct: DirectPath, relay_of: Callable[[ProcessOutbox], Relay]) -> None:
        """Open the outbox; rows that are there are shipped. Raises `OutboxUnavailable`.

        Where the disk is too full to make one, there is only the direct way until there is room.
        """
        self._direct, self._relay_of, self._closing = direct, relay_of, asyncio.Event()
        try:
            await self._open()
        except NoRoomForOutbox as error:
            log.error("outbox.none error=%r -- events go to the broker alone", str(error))  # noqa: TRY400 -- no traceback needed
            self._no_outbox = error
            self._making = asyncio.create_task(self._open_later(), name="stagepost-outbox-room")
        self._adoption = Adoption(self._directory, self._settings.outbox_max_bytes, relay_of)
        self._adoption.start()

    def wake(self) -> None:
        """The staging topic is known now."""
        if self._relay is not None:
            self._relay.wake()

    def takes(self, call: Call) -> bool:
        """Whether the call has to go this way; if so it was taken. Events of other keys never wait (S6)."""
        if call.outbox == "always":
            self.store(call)
            return True
        outbox = self._outbox
        if outbox is not None and outbox.is_empty and self.breaker.is_closed and not outbox.in_doubt.of_key:
            return False
        if outbox is not None and call.outbox != "never" and outbox.in_doubt.is_elsewhere(self, call.key):
            self.store(call)
            return True
        if self._must_queue(call.key):
            if call.outbox == "never":
                reason = "events of its key wait in the outbox, and outbox=never may not queue behind them"
                call.fail(failure_of(call.event_id, TimeoutError(reason), unknown=False))
            else:
                self.store(call)
            return True
        if self.breaker.is_closed:
            return False
        if call.outbox == "never":
            cause = ConnectionError(f"the circuit breaker is open: {self.breaker.reason}")
            call.fail(failure_of(call.event_id, cause, unknown=False))
        else:
            self.store(call)
        return True

    def succeeded(self, count: int) -> None:
        """So many events were acknowledged."""
        self.breaker.succeeded(count, self._clock.monotonic())

    def overdue(self, call: Call, cause: BaseException) -> None:
        """A call was not acknowledged in time: it and all behind it in its lane become rows, in order.

        Once the breaker opens, so does everything that is under way. Without an outbox it goes on waiting.
        """
        if self._outbox is None:
            return
        self._empty(call.lane, cause)
        if not self.breaker.is_closed:
            self._empty_all(cause)

    def gave_up(self, call: Call, cause: BaseException) -> None:
        """A call that may not go this way was not acknowledged in time, which counts like any other (B2)."""
        if self._outbox is None or self._relay is None:
            return  # nobody would close the breaker
        self.breaker.failed(1, self._clock.monotonic(), str(cause) or type(cause).__name__, begun=call.begun)
        if not self.breaker.is_closed:
            self._empty_all(cause)
            self._relay.wake()  # it probes, also where no row waits

    def failed(self, call: Call, error: BaseException) -> None:
        """A call that was not sent cannot be: another way, where it may go there."""
        if call.outbox == "never" or self._outbox is None:
            call.fail(failure_of(call.event_id, error, unknown=False))
        else:
            self.store(call)

    def deserted(self, call: Call) -> None:
        """Its caller has gone on while it was in flight: what of its key becomes a row meanwhile has it ahead (S6)."""
        if call.outbox == "never" or call.stored:
            return
        left_lane, outbox = call.left_lane, self._outbox

        def leave(failure: Exception | None) -> None:
            if outbox is not None:
                outbox.in_doubt.forget(call.key, call)
            left = self._deserted.pop(call.key, [])
            if rest := [other for other in left if other is not call]:
                self._deserted[call.key] = rest
            left_lane(failure)

        self._deserted[call.key].append(call)
        if outbox is not None:
            outbox.in_doubt.add(self, call.key, call)
        call.left_lane = leave

    def store(self, call: Call) -> None:
        """Make the event a row; its caller is answered once that is fsynced."""
        elsewhere = self._outbox.in_doubt.take_over(self, call.key) if self._outbox is not None else ()
        for one in (*elsewhere, *self._deserted.pop(call.key, ()), call):
            if not one.stored:
                self._append(one)

    def _append(self, call: Call) -> None:
        if self._outbox is None:
            assert self._no_outbox is not None
            call.fail(failure_of(call.event_id, self._no_outbox, unknown=call.taken > 0))
            return
        call.stored = True
        self._outbox.append(call.key, encode(call.event_id, call.packed), call, self._listener)
        self._storing += 1

    async def health(self) -> Health:
        """From the outbox itself: degraded while rows wait or the breaker is not closed.

        Raises what is wrong with the outbox.
        """
        if self._outbox is None:
            assert self._no_outbox is not None
            raise self._no_outbox
        waiting = await self._outbox.waiting()
        return of_outbox(self.breaker, waiting, self._adoption.set_aside, self._adoption.damage)

    def waiting_now(self) -> Waiting | None:
        """What waits in the outbox; None where it does not answer at once. Blocks for a moment."""
        return self._outbox.waiting_now(_LOOK_S) if self._outbox is not None else None

    async def drained(self) -> None:
        """Wait, without limit, until no row waits here, nor in any slot that nobody held at the start."""
        await self._adoption.looked.wait()
        if self._relay is not None:
            await self._relay.until_empty()

    async def settle(self) -> None:
        """Wait for the broker's answers to rows that are in flight; for no longer than a call waits for one."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.stage_timeout_s):
                await asyncio.gather(
                    self._adoption.settle(), *([self._relay.settle()] if self._relay else [])
                )

    async def close(self, limit_s: float) -> bool:
        """Make rows of what is still under way; end the relay; let go of the outbox. False where that takes longer, for
        its disk does not answer: what was to be stored may be or not."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._close()
                return True
        log.error("outbox.not_closed dir=%s -- the disk does not answer", self._settings.outbox_dir)
        return False

    async def _close(self) -> None:
        self._closing.set()
        if self._making is not None:
            await self._making
        await self._adoption.stop()
        if self._outbox is None or self._relay is None:
            return
        await self._relay.stop()
        cause = ConnectionError("the stager was closed before the broker answered")
        self._empty_all(cause)
        while self._storing:
            self._all_stored.clear()
            await self._all_stored.wait()
        outbox, self._outbox = self._outbox, None
        await let_go(outbox)

    async def _open(self) -> None:
        outbox = await asyncio.to_thread(shared, self._directory, self._settings.outbox_max_bytes)
        self._listener = Listener(self._stored)
        self._relay = self._relay_of(outbox)
        self._relay.start()
        self._outbox = outbox

    async def _open_later(self) -> None:
        """Nothing of any key can wait in an outbox that does not exist, so it may begin at any moment (S6)."""
        while self._outbox is None and not await self._closes_within(_ROOM_AGAIN_S):
            try:
                await self._open()
            except OutboxUnavailable as error:
                self._no_outbox = error
            except Exception as error:  # noqa: BLE001 -- whatever it is, it is tried again
                self._no_outbox = OutboxUnavailable(str(self._directory), repr(error))
            else:
                log.info("outbox.opened -- there is room for it now")

    async def _closes_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        return self._closing.is_set()

    def _must_queue(self, key: bytes) -> bool:
        """Whether an event of this key must become a row, behind others of its key that no lane has yet."""
        if self._outbox is None or self._relay is None:
            return False
        return self._outbox.rows_of(key) > self._relay.under_way(key)

    def _empty(self, lane: Lane | None, cause: BaseException) -> None:
        calls = self._direct.evict(lane)
        now = self._clock.monotonic()
        begun = now - self._settings.stage_timeout_s * DIRECT_SHARE  # of the one that is overdue
        self.breaker.failed(len(calls), now, str(cause) or type(cause).__name__, begun=begun)
        for call in calls:
            if call.outbox == "never":
                call.fail(failure_of(call.event_id, cause, unknown=call.taken > 0))
            elif not call.outcome.cancelled() or call.taken:
                self.store(call)
        self._direct.admit()

    def _empty_all(self, cause: BaseException) -> None:
        for lane in (*self._direct.lanes, None):
            self._empty(lane, cause)

    def _stored(self, told: Told[Call]) -> None:
        self._storing -= len(told)
        if not self._storing:
            self._all_stored.set()
        stored = [call.begun for call, result in told if type(result) is int and not call.outcome.done()]
        self._meter.staged("outbox", *stored)  # before any of their callers goes on
        for call, result in told:
            try:
                if isinstance(result, OutboxUnavailable):
                    call.fail(failure_of(call.event_id, result, unknown=call.taken > 0))
                else:
                    call.answer(Staged(call.event_id, "outbox", None, None, None, result))
            except Exception:
                log.exception("outbox.end_not_told id=%r -- please report this", call.event_id)
