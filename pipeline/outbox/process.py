"""The outbox of one process: one slot, one writer thread, one relay at a time.

Owns: group commit, the thread, whose turn it is to ship. Must not know: how rows are shipped, who shares it. All
stagers of a process do, whatever their event loops; every method may be called from any thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from pipeline.outbox.errors import OutboxUnavailable
from pipeline.outbox.forks import Inside
from pipeline.outbox.in_doubt import InDoubt
from pipeline.outbox.keys import RowsOfKeys
from pipeline.outbox.protocol import Stored, Waiting
from pipeline.outbox.slots import Slot
from pipeline.outbox.store import RocksStore
from pipeline.outbox.telling import Listener, call_on, tell

__all__ = ["ProcessOutbox"]

log = logging.getLogger(__name__)

T = TypeVar("T")
_MAX_GROUP = 2_000
_COUNT_AT_ONCE = 2_000
_AT_ONCE_BYTES = 8_388_608
_PAUSE_S = 1.0


_Append = tuple[bytes, bytes, Any, Listener[Any]]
"""Key, row, what the listener knows it by, the listener."""


class _Relaying(NamedTuple):
    wake: Callable[[], None]
    loop: asyncio.AbstractEventLoop


class ProcessOutbox:
    """Stores rows with one fsync for many callers, in a slot that this process holds; it owns the slot then.

    Raises `OutboxUnavailable` where the slot's files cannot be used.
    """

    def __init__(self, slot: Slot, max_bytes: int) -> None:
        self.users = 0
        """How many stagers of this process use it."""
        self.in_doubt: InDoubt[Any] = InDoubt()
        self._relaying: _Relaying | None = None
        self._slot = slot
        self._inside = Inside()
        with self._inside:
            self._store = RocksStore(slot.folder, max_bytes)
            self._inside.close = self._store.close
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._appends: deque[_Append] = deque()
        self._calls: deque[Callable[[], None]] = deque()
        self._closed = False
        self._ends: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._keys = RowsOfKeys(self._store.last_sequence)
        self._thread = threading.Thread(target=self._run, name="stagepost-outbox", daemon=True)
        self._thread.start()

    def append(self, key: bytes, data: bytes, name: T, listener: Listener[T]) -> None:
        """Store a row; the listener is told by that name what became of it, once it is fsynced.

        From this call on, before it is stored, the key has a row. Where the listener hears of `OutboxUnavailable`, the
        key has one row less again. Raises `OutboxUnavailable` once it is closed.
        """
        item = (key, data, name, listener)
        with self._lock:
            if self._closed:
                raise OutboxUnavailable(str(self._slot.folder), "it is closed")
            self._keys.add(key)
            self._appends.append(item)
            if len(self._appends) == 1:  # else the thread has been told, and has not looked yet
                self._changed.notify()

    def rows_of(self, key: bytes) -> float:
        """How many rows of a key wait; infinitely many while the rows of an earlier process are counted."""
        return self._keys.count(key)

    @property
    def is_empty(self) -> bool:
        """Whether no row of any key waits, and none of an earlier process is yet to be counted."""
        return self._keys.is_empty

    def claim_relay(self, wake: Callable[[], None], loop: asyncio.AbstractEventLoop) -> bool:
        """Whether the caller shall ship the rows: one relay at a time does, so that their order holds, and none
        before all rows of an earlier process are counted.

        `wake` is called on this loop whenever rows were stored.
        """
        with self._lock:
            free = self._relaying is None or self._relaying.loop.is_closed()  # it could not let go
            if free and self._keys.all_counted:
                self._relaying = _Relaying(wake, loop)
            return self._relaying is not None and self._relaying.wake is wake

    def leave_relay(self, wake: Callable[[], None]) -> None:
        """The caller ships no more; another stager of the process may."""
        with self._lock:
            if self._relaying is not None and self._relaying.wake is wake:
                self._relaying = None

    async def read(self, after: int, limit: int) -> list[Stored]:
        """Up to `limit` rows above a sequence, in order; fewer where they are large."""
        return await self._call(lambda: self._store.read(after, limit, _AT_ONCE_BYTES))

    async def delete(self, rows: Sequence[Stored]) -> None:
        """Forget shipped rows."""
        await self._keys.end(rows, lambda: self._store.delete(rows), self._call)

    async def set_aside(self, row: Stored, reason: str) -> None:
        """Move a row out of the way that can never be shipped; its key, where it can be read, goes on."""
        await self._keys.end([row], lambda: self._store.set_aside(row, reason), self._call)

    async def waiting(self) -> Waiting:
        """What waits now, from the store itself: also the probe of whether it works."""

        return await self._call(self._ask)

    def waiting_now(self, limit_s: float) -> Waiting | None:
        """The same for who has no event loop; None where it takes longer, or the outbox is closed."""
        answer: concurrent.futures.Future[Waiting] = concurrent.futures.Future()

        def ask() -> None:
            try:
                answer.set_result(self._ask())
            except Exception as error:  # noqa: BLE001 -- carried to who asks
                answer.set_exception(error)

        with self._lock:
            if self._closed:
                return None
            self._calls.append(ask)
            self._changed.notify()
        try:
            return answer.result(limit_s)
        except (TimeoutError, OutboxUnavailable):
            return None

    def _ask(self) -> Waiting:
        store = self._store
        first = store.read(0, 1)
        oldest = first[0].at if first else None
        full = store.full and not store.room.has(0)
        return Waiting(store.rows, store.bytes, oldest, store.set_aside_count, store.damage, full)

    async def close(self) -> None:
        """Store what was handed over, close the files, let go of the slot. Idempotent.

        Needs no other thread than the writer: when a program ends, none can be started any more.
        """
        loop = asyncio.get_running_loop()
        end: asyncio.Future[None] = loop.create_future()
        with self._lock:
            self._closed = True
            if not self._thread.is_alive():
                return
            self._ends.append((loop, end))
            self._changed.notify()
        await end

    async def _call(self, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def call() -> None:
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 -- carried to the caller
                failure = self._typed(error)
                call_on(loop, lambda: None if done.done() else done.set_exception(failure))
            else:
                call_on(loop, lambda: None if done.done() else done.set_result(result))

        with self._lock:
            if self._closed:
                raise OutboxUnavailable(str(self._slot.folder), "it is closed")
            self._calls.append(call)
            self._changed.notify()
        return await done

    def _run(self) -> None:
        while True:
            with self._lock:
                while not (self._appends or self._calls or self._closed) and self._keys.all_counted:
                    self._changed.wait()
                if len(self._appends) <= _MAX_GROUP:
                    appends, self._appends = self._appends, deque()
                else:
                    appends = deque(self._appends.popleft() for _ in range(_MAX_GROUP))
                calls = [self._calls.popleft() for _ in range(len(self._calls))]
                finished = self._closed and not appends and not calls
            if finished:
                self._end()
                return
            with self._inside:
                if appends:
                    self._commit(appends)
                for call in calls:
                    call()
                if not self._keys.all_counted:
                    self._count_some()

    def _end(self) -> None:
        with self._inside:
            self._store.close()
        self._slot.release()
        with self._lock:
            for loop, end in self._ends:
                call_on(loop, lambda end=end: None if end.done() else end.set_result(None))  # type: ignore[misc]

    def _typed(self, error: Exception) -> OutboxUnavailable:
        if isinstance(error, OutboxUnavailable):
            return error
        log.error("outbox.failed error=%r", error, exc_info=error)
        return OutboxUnavailable(str(self._slot.folder), repr(error))

    def _commit(self, appends: Sequence[_Append]) -> None:
        """One fsync for all; where all together do not fit, each for itself, so that what fits is stored."""
        results: Sequence[int | OutboxUnavailable]
        try:
            results = self._store.append([data for _, data, _, _ in appends])
        except Exception as error:  # noqa: BLE001 -- this thread must not end, or nobody would ever hear
            if len(appends) > 1:
                for item in appends:
                    self._commit([item])
                return
            results = [self._typed(error)]
            self._keys.forget([key for key, _, _, _ in appends])
        told: defaultdict[Listener[Any], list[tuple[Any, int | OutboxUnavailable]]] = defaultdict(list)
        for (_, _, name, listener), result in zip(appends, results, strict=True):
            told[listener].append((name, result))
        relaying = self._relaying
        for listener, rows in told.items():
            wake = None
            if relaying is not None and relaying.loop is listener.loop:
                wake, relaying = relaying.wake, None  # with one wake-up of the loop
            call_on(listener.loop, partial(tell, listener, rows, wake))
        if relaying is not None:
            call_on(relaying.loop, relaying.wake)

    def _count_some(self) -> None:
        """Rows of an earlier process: learn their keys, so that new events queue behind them; a few at a time, for
        new events wait to be stored meanwhile."""
        try:
            rows = self._store.read(self._keys.counted_to, _COUNT_AT_ONCE, _AT_ONCE_BYTES)
        except Exception as error:  # noqa: BLE001 -- the same
            log.warning("outbox.not_counted error=%r", error)
            with self._changed:
                self._changed.wait(_PAUSE_S)
            return
        self._keys.add_old(rows)
