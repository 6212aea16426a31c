"""The clock that is handed in wherever time decides something.

Owns: reading time. Must not know: who asks. Tests hand in `pipeline.testing.SteppingClock`.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from math import floor
from typing import Protocol

__all__ = ["SYSTEM_CLOCK", "Clock", "SystemClock", "rfc3339", "rfc3339_bytes"]


class Clock(Protocol):
    """Two readings: one that never goes back, for durations; one of the calendar, for records."""

    def monotonic(self) -> float:
        """Seconds since some fixed point; never goes back."""
        ...

    def time(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


SYSTEM_CLOCK = SystemClock()


_second: tuple[int, bytes] = 0, b"1970-01-01T00:00:00.%06dZ"
"""The second asked for last, and its text with a place for the microseconds: events come many a second."""


def rfc3339(seconds: float) -> str:
    """A calendar reading as RFC 3339 text in UTC with microseconds, e.g. `2026-01-02T03:04:05.000006Z`."""
    return rfc3339_bytes(seconds).decode()


def rfc3339_bytes(seconds: float) -> bytes:
    """The same in ASCII."""
    global _second
    known, text = _second
    micros = round((seconds - known) * 1_000_000)
    if not 0 <= micros < 1_000_000:
        whole = floor(seconds)
        micros = round((seconds - whole) * 1_000_000)
        if micros == 1_000_000:
            whole, micros = whole + 1, 0
        day_and_time = datetime.fromtimestamp(whole, UTC).isoformat(timespec="seconds").removesuffix("+00:00")
        _second = whole, text = whole, f"{day_and_time}.%06dZ".encode()
    return text % micros
