"""The way from any thread to the stager's event loop.

Owns: the calls that other threads hand over, one wake-up for many. Must not know: what becomes of a call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from pipeline.client.call import Call
from pipeline.errors import StagerClosed

__all__ = ["Inbox"]


class Inbox:
    """Hands calls to `accept` on the event loop, in the order they were posted."""

    def __init__(self, accept: Callable[[Call], None]) -> None:
        self._accept = accept
        self._calls: deque[Call] = deque()
        self._posted = False

    def post(self, call: Call, loop: asyncio.AbstractEventLoop) -> None:
        """Hand over a call, from any thread. Does not block. Raises `StagerClosed` where the loop is closed.

        Calls that come while the loop is about to look share one wake-up.
        """
        self._calls.append(call)
        if not self._posted:
            self._posted = True
            try:
                loop.call_soon_threadsafe(self._take)
            except RuntimeError as error:
                raise StagerClosed("the stager's event loop is closed: open a new stager") from error

    def _take(self) -> None:
        self._posted = False  # first: what is appended from here on posts again
        while self._calls:
            self._accept(self._calls.popleft())
