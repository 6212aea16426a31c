"""UUID version 7 (RFC 9562): time-ordered event ids.

Owns: making ids that grow within a process. Must not know: what they name.
"""

from __future__ import annotations

import os
import threading
import time

__all__ = ["uuid7"]

_SEQUENCE_BITS = 12


class _Generator:
    """Milliseconds and a 12-bit counter, so that ids of one process grow also within a millisecond."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> str:
        with self._lock:
            tick = time.time_ns() // 1_000_000 << _SEQUENCE_BITS
            # RFC 9562 §6.2 method 1: the counter runs on from the last id, into the next millisecond if need be.
            self._last = tick = max(tick, self._last + 1)
        millis, counter = tick >> _SEQUENCE_BITS, tick & 0xFFF
        tail = int.from_bytes(os.urandom(8)) & (1 << 62) - 1
        value = f"{millis << 80 | 0x7 << 76 | counter << 64 | 0x2 << 62 | tail:032x}"
        return f"{value[:8]}-{value[8:12]}-{value[12:16]}-{value[16:20]}-{value[20:]}"


_generator = _Generator()


def _after_fork() -> None:
    # The child must not share a lock that another thread of the parent held at the fork.
    global _generator
    _generator = _Generator()


os.register_at_fork(after_in_child=_after_fork)


def uuid7() -> str:
    """A new UUIDv7 as text; larger than every one before it in this process. Does not block, safe from any thread."""
    return _generator.next()
