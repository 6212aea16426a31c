"""Closing aiokafka's consumers, whatever their fetcher is doing.

Owns: that a close ends, and raises nothing of what it ended. Must not know: what is fetched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from aiokafka.consumer import consumer, fetcher

__all__ = ["close_completely"]

_AGAIN_S = 0.1


def close_completely() -> None:
    """Let all aiokafka consumers that this process starts from now on close as said here. Idempotent."""
    consumer.Fetcher = _Fetcher


class _Fetcher(fetcher.Fetcher):  # type: ignore[misc]
    """aiokafka's own closes never while it lets go of the partitions it had before: it then waits for its fetches, and
    a cancellation is lost with theirs. And what it ends amid the pause after a fetch that failed, as while no broker
    answers, it raises as a cancellation: of whoever closes, whom nobody had cancelled.
    """

    async def close(self) -> None:
        """End everything that runs."""
        self._closed = True
        await _end({self._fetch_task})
        for waiter in self._fetch_waiters:
            self._notify(waiter)
        await _end(self._pending_tasks)


async def _end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel them, again where that was lost, until they have ended. Raises nothing of theirs."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        ended, left = await asyncio.wait(left, timeout=_AGAIN_S)
        for task in ended:
            if not task.cancelled():
                task.exception()  # aiokafka has logged it
