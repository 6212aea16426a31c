"""A clock that stands still until a test moves it."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["SteppingClock"]


class SteppingClock:
    """A `pipeline.clock.Clock`: both readings go forward by what `step` is told, and never by themselves."""

    def __init__(self, now: datetime = datetime(2026, 1, 2, 3, 4, 5, 6, UTC)) -> None:
        """Start at `now`, which must be aware. The monotonic reading starts at 0."""
        if now.tzinfo is None:
            raise ValueError("now has no time zone: pass an aware datetime")
        self._start = now.timestamp()
        self._passed = 0.0

    def step(self, seconds: float) -> None:
        """Let time pass. Raises `ValueError` for less than nothing."""
        if seconds < 0:
            raise ValueError("time does not go back")
        self._passed += seconds

    def monotonic(self) -> float:
        """Seconds that have passed."""
        return self._passed

    def time(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return self._start + self._passed
