"""Which keys have rows, and how many: events of such a key queue behind them (S6).

Owns: the count per key, from before a row is stored until whoever ended it goes on; whether the rows of an earlier
process are counted yet. Must not know: how rows are stored or read, who ships them. Safe from any thread.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence

from pipeline.outbox.protocol import Stored
from pipeline.outbox.row import key_of

__all__ = ["RowsOfKeys"]


class RowsOfKeys:
    """The rows of one outbox by key. Those up to `old_rows_end` are of an earlier process, and are to be counted."""

    def __init__(self, old_rows_end: int) -> None:
        self.counted_to = 0
        """Up to this sequence the rows of an earlier process are counted."""
        self.all_counted = old_rows_end == 0
        """Whether no row of an earlier process is yet to be counted."""
        self._old_rows_end = old_rows_end
        self._rows: defaultdict[bytes, int] = defaultdict(int)
        self._lock = threading.Lock()

    @property
    def is_empty(self) -> bool:
        """Whether no key has a row, and none of an earlier process is yet to be counted."""
        return not self._rows and self.all_counted

    def count(self, key: bytes) -> float:
        """How many rows of a key wait; infinitely many while the rows of an earlier process are counted."""
        return self._rows.get(key, 0) if self.all_counted else math.inf

    def add(self, key: bytes) -> None:
        """The key has one row more."""
        with self._lock:
            self._rows[key] += 1

    def add_old(self, rows: Sequence[Stored]) -> None:
        """The rows after `counted_to`, in order; without any, all have been counted."""
        keys = [key_of(row.data) for row in rows if row.sequence <= self._old_rows_end]
        with self._lock:
            for key in keys:
                if key is not None:  # a row that cannot be read is set aside by whoever ships
                    self._rows[key] += 1
            self.counted_to = rows[-1].sequence if rows else self._old_rows_end
            self.all_counted = self.counted_to >= self._old_rows_end

    def forget(self, keys: Iterable[bytes | None]) -> None:
        """Each has one row less; None: of a row that cannot be read, which was never counted."""
        with self._lock:
            for key in keys:
                if key is None:
                    continue
                left = self._rows[key] - 1
                if left > 0:
                    self._rows[key] = left
                else:
                    del self._rows[key]

    async def end(
        self,
        rows: Sequence[Stored],
        change: Callable[[], None],
        in_thread: Callable[[Callable[[], None]], Awaitable[None]],
    ) -> None:
        """Carry out, in the outbox's thread, the change that ends these rows. Raises what that raises.

        Their keys have them until the caller goes on, not sooner: in the same turn of its loop he takes them from
        what is under way, and both together say who may overtake whom. Where he is cancelled, until they are gone.
        """
        keys = [key_of(row.data) for row in rows]
        changed = left_alone = False

        def work() -> None:
            nonlocal changed
            change()
            with self._lock:
                changed = True
                if not left_alone:
                    return
            self.forget(keys)

        try:
            await in_thread(work)
        except asyncio.CancelledError:
            with self._lock:
                left_alone = True
                gone = changed
            if gone:
                self.forget(keys)
            raise
        self.forget(keys)
