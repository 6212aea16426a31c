"""Time that passes only when nobody has anything to do: a million seconds of waiting cost nothing.

Owns: the readings of both clocks. Must not know: who waits. `install` comes before any module of ours or of Faust
is imported, since many of them keep `time.monotonic` under a name of their own.
"""

from __future__ import annotations

import time

__all__ = ["TIME", "VirtualTime", "install"]

_CALENDAR = 1_700_000_000.0
_START = 1_000.0


class VirtualTime:
    """Both clocks of the one machine that all simulated processes run on."""

    def __init__(self) -> None:
        self.now = _START
        """What `time.monotonic()` says."""
        self.skew = 0.0
        """How far the calendar was set forward or back."""

    def reset(self) -> None:
        """A new world begins."""
        self.now = _START
        self.skew = 0.0

    def monotonic(self) -> float:
        """Seconds since some point, never back."""
        return self.now

    def time(self) -> float:
        """Seconds since 1970, by a clock that people and NTP may set."""
        return _CALENDAR + self.now + self.skew

    def time_ns(self) -> int:
        """The same in nanoseconds."""
        return int(self.time() * 1e9)


TIME = VirtualTime()


def install() -> None:
    """Let `time` read virtual time in this interpreter, for good."""
    time.monotonic = TIME.monotonic
    time.time = TIME.time
    time.time_ns = TIME.time_ns
