"""Watching a run: lines that say how far it is, until the worker has dealt with everything.

Owns: when a run has settled or stalled, the lines. Must not know: what is in a record, how programs are run.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from aiokafka.errors import KafkaError

from demo.topics import Offsets, Topics

__all__ = ["Watched", "say", "watch"]

_POLL_S: Final = 0.25
_STALL_S: Final = 60.0
_TERMINAL_S: Final = 1.0
_LOG_S: Final = 5.0


class Watched(NamedTuple):
    """What was seen: whether everything was dealt with, and when, in seconds since the start.

    `staged`: the first event on the staging topic; `delivered`: the first on a target, infinite if there was
    none; `ended`: when nothing was left.
    """

    settled: bool
    staged: float
    delivered: float
    ended: float


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


async def watch(topics: Topics, staging_done: Callable[[], bool], start: float) -> Watched:
    """Look several times a second, print a line now and then, return when the run has settled or stalled.

    It has settled when all programs that stage are done and the worker has committed every staging record;
    stalled when nothing has moved for a minute. `staging_done` may raise, to end the watch. `start` is a
    reading of `time.monotonic()`.
    """
    staged = delivered = math.inf
    seen = Offsets(0, 0, 0, 0)
    moved = printed = time.monotonic()
    while True:
        done = staging_done()  # asked before the offsets: what was staged before is in them
        offsets = await _offsets(topics, seen)
        now = time.monotonic()
        if offsets != seen:
            moved = now
        seen = offsets
        if offsets.staged:
            staged = min(staged, now - start)
        if offsets.delivered:
            delivered = min(delivered, now - start)
        settled = done and offsets.staged > 0 and offsets.committed >= offsets.staged
        if settled or now - printed >= (_TERMINAL_S if sys.stdout.isatty() else _LOG_S):
            printed = now
            say(_line(now - start, offsets))
        if settled or now - moved > _STALL_S:
            return Watched(settled, staged, delivered, now - start)
        await asyncio.sleep(_POLL_S)


async def _offsets(topics: Topics, before: Offsets) -> Offsets:
    try:
        return await topics.offsets()
    except KafkaError:  # topics are just being created
        return before


def _line(seconds: float, offsets: Offsets) -> str:
    return (
        f"{seconds:5.1f} s   staged {offsets.staged:>7,}   delivered {offsets.delivered:>7,}"
        f"   dead letters {offsets.dead:>3,}"
    )
