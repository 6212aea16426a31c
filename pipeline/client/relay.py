"""The relay: ships what waits in an outbox, in order, and deletes a row only after the broker's acknowledgement.

Owns: the cursor, which rows are in lanes, probing while the breaker is open.
Must not know: how rows are stored or batches made, who staged the event.

Order (S6): rows go into the lanes in their sequence. Once the last row of a key is in its lane, an event of
that key may go into the lane behind it; until then it must become a row. When a lane is emptied because
the broker fails, its rows are simply read again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict, deque
from collections.abc import Callable

from pipeline.breaker import Breaker
from pipeline.clock import Clock
from pipeline.kafka.lane import Lane, Parcel
from pipeline.kafka.producer import Producer
from pipeline.outbox.errors import OutboxUnavailable
from pipeline.outbox.protocol import Outbox, Stored, Turn
from pipeline.outbox.row import BadRow, Row, decode
from pipeline.packing import PACKED_OVERHEAD
from pipeline.types import Shipped

__all__ = ["Relay"]

log = logging.getLogger(__name__)

_WINDOW, _WINDOW_BYTES = 2_000, 16_777_216  # what waits may be as large as the disk
_PAUSE_S = 1.0
_LOOK_AGAIN_S = 0.2


class _RowParcel(Parcel):
    """A row on its way. It has no deadline: an outage may last as long as it likes."""

    __slots__ = ("_relay", "key", "stored")

    def __init__(self, row: Row, stored: Stored, relay: Relay) -> None:
        super().__init__((row.packed,), size=len(row.packed) + PACKED_OVERHEAD)
        self.key = row.key
        self.stored = stored
        self._relay = relay

    def acked(self, first: int, count: int, offset: int) -> None:  # noqa: ARG002 -- one record
        """On the staging topic: the row may go."""
        self._relay.shipped(self)

    def refused(self, index: int, error: BaseException) -> None:  # noqa: ARG002
        """The broker will never take it: it is set aside, its key goes on."""
        self._relay.refused(self, error)

    def given_up(self, first: int, count: int, error: BaseException) -> None:  # noqa: ARG002
        """The lane was emptied: the row is still stored and will be read again."""
        self._relay.returned(self)


class Relay:
    """Ships an outbox through one producer. Bound to that producer's event loop.

    `turn`: asked before it begins, where others may ship the same rows.
    """

    def __init__(
        self,
        outbox: Outbox,
        producer: Producer,
        breaker: Breaker,
        clock: Clock,
        *,
        topic: str,
        lane_of: Callable[[bytes], Lane | None],
        probe_timeout_s: float,
        turn: Turn | None = None,
    ) -> None:
        self._outbox = outbox
        self._turn = turn
        self._producer = producer
        self._breaker = breaker
        self._clock = clock
        self._topic = topic
        self._lane_of = lane_of
        self._probe_timeout_s = probe_timeout_s
        self._cursor = 0
        self._under_way: defaultdict[bytes, int] = defaultdict(int)
        self._shipped: list[_RowParcel] = []
        self._refused: deque[tuple[_RowParcel, str]] = deque()
        self._flying: dict[int, _RowParcel] = {}
        self._flying_bytes = 0
        self._returns = 0
        self._settling = False
        self._landed = asyncio.Event()
        self._changing = asyncio.Lock()
        self._done = [0, 0]
        """How many rows were shipped, and set aside."""
        self._empty = asyncio.Event()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._told = self._wake.set
        self._again: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin; rows that an earlier process left are shipped first."""
        self._wake.set()
        self._task = asyncio.create_task(self._run(), name="stagepost-relay")

    async def stop(self) -> None:
        """End at once. What is not acknowledged stays in the outbox."""
        if self._task is not None:
            async with self._changing:  # a change of the store that is under way is carried through
                self._task.cancel()
            await asyncio.wait([self._task])
            with contextlib.suppress(OutboxUnavailable):
                await self._tidy()
            if self._turn is not None:
                self._turn.leave_relay(self._told)

    async def settle(self) -> None:
        """Hand over no more rows, and wait, without limit, for the end of those that are in lanes: what is in flight
        when its lane is emptied comes twice."""
        self._settling = True
        while self._flying:
            self._landed.clear()
            await self._landed.wait()

    async def until_empty(self) -> Shipped:
        """Wait, without limit, until nothing waits any more; what was done since the start.

        Raises what the outbox raised, if that ended the relay.
        """
        assert self._task is not None, "the relay was not started"
        while not await self._is_empty():
            self._empty.clear()
            empty = asyncio.create_task(self._empty.wait())
            try:  # looks again, for another stager of the process may be the one that ships
                await asyncio.wait(
                    [empty, self._task], timeout=_LOOK_AGAIN_S, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                empty.cancel()
            if self._task.done():
                self._task.result()
        return Shipped(*self._done)

    async def _is_empty(self) -> bool:
        """Whether no row waits now, on its way or not; false where the outbox does not say."""
        with contextlib.suppress(OutboxUnavailable):
            async with self._changing:  # what was shipped and deleted is counted then
                return not await self._outbox.read(0, 1)
        return False

    def wake(self) -> None:
        """There is something new: a row, a closed breaker, a staging topic that is known now."""
        self._wake.set()

    def under_way(self, key: bytes) -> int:
        """How many rows of a key are in their lane."""
        return self._under_way.get(key, 0)

    def shipped(self, parcel: _RowParcel) -> None:
        """The broker acknowledged a row."""
        self._shipped.append(parcel)
        self._wake.set()

    def refused(self, parcel: _RowParcel, error: BaseException) -> None:
        """The broker refused a row for good."""
        self._refused.append((parcel, f"refused by the staging broker: {error}"))
        self._wake.set()

    def returned(self, parcel: _RowParcel) -> None:
        """A lane gave a row back."""
        self._returns += 1
        self._no_longer_under_way(parcel)
        self._cursor = min(self._cursor, parcel.stored.sequence - 1)
        self._wake.set()

    async def _run(self) -> None:
        # Its holder may be another event loop; or rows of an earlier process are being counted.
        while self._turn is not None and not self._turn.claim_relay(self._told, self._loop):
            if self._breaker.is_closed:
                await asyncio.sleep(_LOOK_AGAIN_S)
            else:
                await self._probe()  # each stager has its own breaker
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._tidy()
                await self._ship()
            except OutboxUnavailable as error:
                log.warning("relay.no_outbox error=%r", error)
            except Exception:
                if self._turn is None:
                    raise  # whoever gave us an outbox of his own hears what it raised
                log.exception("relay.failed -- it goes on; please report this")
            else:
                continue
            await asyncio.sleep(_PAUSE_S)
            self._wake.set()

    async def _tidy(self) -> None:
        """Delete what was shipped, set aside what can never be; what fails stays on its list for the next time."""
        async with self._changing:
            if done := self._shipped[:]:
                await self._outbox.delete([parcel.stored for parcel in done])
                del self._shipped[: len(done)]
                self._done[0] += len(done)
                for parcel in done:
                    self._no_longer_under_way(parcel)
            while self._refused:
                parcel, reason = self._refused[0]
                await self._outbox.set_aside(parcel.stored, reason)
                self._refused.popleft()
                self._done[1] += 1
                self._no_longer_under_way(parcel)

    async def _ship(self) -> None:
        if self._lane_of(b"") is None:
            if self._again is None:  # one is enough, however often there are new rows meanwhile
                self._again = self._loop.call_later(_LOOK_AGAIN_S, self._look_again)
            return  # the topic is being learnt
        if not self._breaker.is_closed:
            await self._probe()
            return
        room = _WINDOW - len(self._flying)
        if room <= 0 or self._flying_bytes >= _WINDOW_BYTES or self._settling:
            return  # an acknowledgement wakes us
        returns = self._returns
        rows = await self._outbox.read(self._cursor, room)
        for stored in rows:
            if self._returns != returns or self._settling:
                break  # a lane was emptied meanwhile: what it gave back goes first
            self._cursor = stored.sequence
            if stored.sequence not in self._flying:
                await self._hand_over(stored)
        if rows:
            self._wake.set()
        elif not self._flying and self._returns == returns:
            self._empty.set()

    def _look_again(self) -> None:
        self._again = None
        self._wake.set()

    async def _hand_over(self, stored: Stored) -> None:
        try:
            row = decode(stored.data)
        except BadRow as error:
            log.error("outbox.set_aside sequence=%d error=%r", stored.sequence, str(error))  # noqa: TRY400 -- no traceback needed
            try:
                async with self._changing:
                    await self._outbox.set_aside(stored, str(error))
            except OutboxUnavailable:
                self._cursor = min(self._cursor, stored.sequence - 1)  # it is read again
                raise
            self._done[1] += 1
            return
        lane = self._lane_of(row.key)
        assert lane is not None, "the staging topic was known a moment ago"
        parcel = self._flying[stored.sequence] = _RowParcel(row, stored, self)
        self._flying_bytes += len(stored.data)
        self._under_way[row.key] += 1
        self._producer.put(lane, parcel)

    async def _probe(self) -> None:
        """While the breaker is open: wait until a probe is due, then ask the broker for the staging topic."""
        due = self._breaker.next_probe()
        now = self._clock.monotonic()
        if due is None:  # another relay of this stager asks: without a pause we would hold the event loop
            await asyncio.sleep(_LOOK_AGAIN_S)
        elif now < due:
            await asyncio.sleep(min(due - now, _PAUSE_S))
        if self._breaker.may_probe(self._clock.monotonic()):
            try:
                await self._producer.probe(self._topic, self._probe_timeout_s)
            except asyncio.CancelledError:
                self._breaker.probe_cancelled(self._clock.monotonic())
                raise
            except Exception as error:  # noqa: BLE001 -- whatever it is, it is what is wrong with the broker
                self._breaker.probe_failed(self._clock.monotonic(), str(error) or type(error).__name__)
            else:
                self._breaker.probe_succeeded(self._clock.monotonic())
        self._wake.set()

    def _no_longer_under_way(self, parcel: _RowParcel) -> None:
        del self._flying[parcel.stored.sequence]
        self._flying_bytes -= len(parcel.stored.data)
        if not self._flying:
            self._landed.set()
        left = self._under_way[parcel.key] - 1
        if left > 0:
            self._under_way[parcel.key] = left
        else:
            del self._under_way[parcel.key]
