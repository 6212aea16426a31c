"""Noticing that a target is sick: its lanes are looked at, ten times a second, and judged.

Owns: when an attempt is overdue, which errors speak for themselves. Must not know: what becomes of a sick
target's events, breakers. The clock is handed in.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass

from pipeline.errors import ErrorClass, classify
from pipeline.kafka.lane import Lane

__all__ = ["Finding", "Watch"]

_SURE_AFTER = {ErrorClass.AUTH: 1, ErrorClass.TOPIC_NOT_FOUND: 2}
"""Attempts after which an error is believed. A topic that was just created is not known to every broker yet."""

_STOOD_STILL_S = 1.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a target: `certain` where a broker said so, else `records` are overdue."""

    target: str
    reason: str
    certain: bool
    records: int


class Watch:
    """What was seen of the lanes at the last looks. `soft_s`: TARGET_SOFT_TIMEOUT_S."""

    def __init__(self, targets: Container[str], soft_s: float) -> None:
        self._targets = targets
        self._soft_s = soft_s
        self._seen: dict[Lane, tuple[int, float]] = {}
        self._last = 0.0

    def look(self, lanes: Iterable[Lane], now: float) -> list[Finding]:
        """One finding for each target that is sick now, in the order of their lanes."""
        if now - self._last > max(self._soft_s / 2, _STOOD_STILL_S):
            self._seen.clear()  # it was us who stood still
        self._last = now
        seen, self._seen = self._seen, {}
        found: dict[str, Finding] = {}
        for lane in lanes:
            if lane.topic not in self._targets:
                continue
            progress, since = seen.get(lane, (-1, now))
            if progress != lane.progress:
                since = now
            self._seen[lane] = (lane.progress, since)
            finding = self._judge(lane, now - since)
            if finding is not None:
                found[lane.topic] = _joined(found.get(lane.topic), finding)
        return list(found.values())

    def _judge(self, lane: Lane, stuck_s: float) -> Finding | None:
        trouble = lane.trouble
        error_class = classify(trouble) if trouble is not None else None
        # While another attempt is under way, its answer is waited for: evicted, what it brings would come twice.
        if error_class in _SURE_AFTER and lane.failures >= _SURE_AFTER[error_class] and not lane.in_flight:
            return Finding(lane.topic, f"{error_class}: {trouble}", certain=True, records=lane.waiting)
        if stuck_s < self._soft_s:
            return None
        why = f"{error_class}: {trouble!r}" if trouble is not None else "no answer"
        reason = f"partition {lane.partition} overdue by {self._soft_s:g} s: {why}"
        return Finding(lane.topic, reason, certain=False, records=lane.waiting)


def _joined(before: Finding | None, finding: Finding) -> Finding:
    if before is None:
        return finding
    first, second = (before, finding) if before.certain else (finding, before)
    return Finding(
        first.target,
        first.reason,
        certain=first.certain or second.certain,
        records=first.records + second.records,
    )
