"""From the thread that writes an outbox to the event loops of those who wait for their rows.

Owns: one callback for all rows of a commit, and that a loop which has ended does no harm. Must not know: rows.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from pipeline.outbox.errors import OutboxUnavailable

__all__ = ["Listener", "Told", "call_on", "tell"]

T = TypeVar("T")

Told = Sequence[tuple[T, int | OutboxUnavailable]]
"""What became of rows: of each the sequence under which it is fsynced, or why it is not stored."""


class Listener(Generic[T]):
    """Hears on the event loop it was made on what becomes of rows, of all of a commit at once."""

    __slots__ = ("loop", "told")

    def __init__(self, told: Callable[[Told[T]], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self.told = told


def tell(listener: Listener[T], rows: Told[T], wake: Callable[[], None] | None) -> None:
    """Wake a relay, and tell what became of rows. To be called on the listener's loop."""
    if wake is not None:
        wake()
    listener.told(rows)


def call_on(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    """Call it on that loop soon, from any thread."""
    with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever waited
        loop.call_soon_threadsafe(call)
