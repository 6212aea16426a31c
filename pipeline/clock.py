"""The clock that is handed in wherever time decides something.

Owns: reading time. Must not know: who asks. Tests hand in `pipeline.testing.SteppingClock`.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

__all__ = ["SYSTEM_CLOCK", "Clock", "SystemClock", "rfc3339"]


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


def rfc3339(seconds: float) -> str:
    """A calendar reading as RFC 3339 text in UTC with microseconds, e.g. `2026-01-02T03:04:05.000006Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
