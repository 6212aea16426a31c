"""From what was fetched to the agents of batch topics: a fetch at a time, and the next once this one was taken.

Owns: their queues. Must not know: what a batch is, progress.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from faust.types import AppT

from pipeline.transport.progress import Batch

__all__ = ["Handover", "wait_for"]


class Handover:
    """The batches of one fetch are one item of an agent's stream, for each item takes turns of the event loop.

    With an item for each batch, and fetches that did not wait, small lists queued for 100 ms at half of what the worker
    can do: the busier it was, the more of them, instead of longer ones.
    """

    def __init__(self, app: AppT) -> None:
        self._app = app
        self._queues: dict[str, Any] = {}
        self._taken = asyncio.Event()

    def give(self, topic: str, batches: Sequence[Batch]) -> None:
        """Into the queue of the topic's agent, whatever its size. Does not block. What was dropped since it was handed
        out, for a rebalance came in between, is left out: nobody may be there for its partition any more."""
        batches = [batch for batch in batches if batch.state == "waiting"]
        if batches:
            (channel,) = self._app.topics._tp_index[topic, batches[0].partition]  # type: ignore[attr-defined]  # noqa: SLF001
            self._queues[topic] = channel.queue
            channel.queue.force_put_nowait(batches)

    def took(self) -> None:
        """An agent has begun with what it was given."""
        self._taken.set()

    async def taken(self, limit_s: float) -> None:
        """Wait until agents have taken all, for at most `limit_s`; what vanished from a queue counts as taken."""
        if not all(queue.empty() for queue in self._queues.values()):
            self._taken.clear()
            await wait_for(self._taken, limit_s)


async def wait_for(event: asyncio.Event, limit_s: float) -> None:
    """Wait for it, for at most `limit_s`."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await event.wait()
