"""The way from any thread to the stager's event loop.

Owns: the calls that other threads hand over, one wake-up for many. Must not know: what becomes of a call.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable

from pipeline.client.call import Call
from pipeline.errors import StagerClosed

__all__ = ["Inbox"]

_HAS_BELLS = hasattr(os, "eventfd")


class Inbox:
    """Hands calls to `accept` on the event loop, in the order they were posted."""

    def __init__(self, accept: Callable[[Call], None]) -> None:
        self._accept = accept
        self._calls: deque[Call] = deque()
        self._posted = False
        self._bell: _Bell | None = None
        """From the first call on, where the system has them."""

    def post(self, call: Call, loop: asyncio.AbstractEventLoop) -> None:
        """Hand over a call, from any thread. Does not block. Raises `StagerClosed` where the loop is closed.

        Calls that come while the loop is about to look share one wake-up.
        """
        if loop.is_closed():
            raise StagerClosed("the stager's event loop is closed: open a new stager")
        self._calls.append(call)
        if self._posted:
            return
        self._posted = True
        if self._bell is None or not self._bell.ring():
            try:
                loop.call_soon_threadsafe(self._take_first)
            except RuntimeError as error:
                raise StagerClosed("the stager's event loop is closed: open a new stager") from error

    def close(self) -> None:
        """Wake the loop no longer by a bell. To be called on it; what was posted is handed over."""
        if self._bell is not None:
            self._bell.close()
            self._take()

    def _take_first(self) -> None:
        if self._bell is None and _HAS_BELLS:
            self._bell = _Bell(self._take)
        self._take()

    def _take(self) -> None:
        self._posted = False  # first: what is appended from here on posts again
        while self._calls:
            self._accept(self._calls.popleft())


class _Bell:
    """Wakes the running loop from any thread. `call_soon_threadsafe` does it through a pair of sockets, whose reading
    alone takes two system calls and an exception: a third of what it takes a thread to call and be answered."""

    def __init__(self, heard: Callable[[], None]) -> None:
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()
        """A number that was closed may be somebody else's a moment later."""
        self._closed = False
        self._loop.add_reader(self._descriptor, self._hear)

    def ring(self) -> bool:
        """Wake the loop, unless the bell is closed."""
        with self._lock:
            if self._closed:
                return False
            os.eventfd_write(self._descriptor, 1)
            return True

    def close(self) -> None:
        """Hear nothing more. To be called on the loop; idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)

    def _hear(self) -> None:
        os.eventfd_read(self._descriptor)
        self._heard()
