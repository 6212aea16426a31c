"""Watching a run, without a broker."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import cast

import pytest

from demo.progress import watch
from demo.topics import Offsets, Topics


class Deaf:
    """Topics whose client drops a cancellation, the first."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def offsets(self) -> Offsets:
        """Nothing yet."""
        dropped = () if self.asked.is_set() else (asyncio.CancelledError,)
        self.asked.set()
        with contextlib.suppress(*dropped):
            await asyncio.Event().wait()
        return Offsets(0, 0, 0, 0)


async def test_ctrl_c_ends_a_watch_whose_client_drops_it() -> None:
    """Ctrl-C ends a run wherever it comes: it cancels the task that watches, once, also in the middle of a question."""
    topics = Deaf()
    watching = asyncio.create_task(watch(cast("Topics", topics), lambda: False, time.monotonic()))
    await topics.asked.wait()
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(5):
            await watching
