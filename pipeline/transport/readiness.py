"""Whether a worker does its work: member of the group, tables recovered, and no partition stands still without a
named cause (O1). Pure; the clock is handed in.

Owns: that judgement. Must not know: Faust, aiokafka: what they say is handed in as `Facts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Facts", "PartitionFacts", "Readiness", "Watch"]

SILENT_S = 15.0
"""After so long without an answer the consumer's thread, which fetches at least every second, is stuck."""
STILL_S = 60.0
"""A partition with unfinished work that does not move for so long stands still."""


@dataclass(frozen=True, slots=True)
class PartitionFacts:
    """An assigned partition of the staging topic."""

    partition: int
    cause: str
    """Why it waits; empty where it does not."""
    unfinished_from: int | None
    """The first offset that was handed out and has not ended; None where nothing is unfinished."""
    uncommitted_to: int | None
    """Up to where all has ended but is not committed yet; None where all of that is."""
    lag: int | None
    """Records that are not committed; None where it is not known."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the consumer says of itself."""

    not_member: str
    """Why the worker is no member of its group; empty where it is one."""
    recovering: bool
    silent_s: float
    """For how long the consumer's thread has not answered."""
    partitions: Sequence[PartitionFacts] = ()


@dataclass(frozen=True, slots=True)
class Readiness:
    """The judgement. `reasons` say why the worker is not ready; `waiting` names each partition that waits, and why."""

    reasons: tuple[str, ...]
    waiting: tuple[tuple[int, str], ...]

    @property
    def ready(self) -> bool:
        """Whether the worker does its work; one without partitions, a spare, does."""
        return not self.reasons


class Watch:
    """Remembers since when each partition has stood where it stands. Look at least every `STILL_S`."""

    def __init__(self) -> None:
        self._stands: dict[int, tuple[tuple[int | None, int | None], float]] = {}

    def look(self, facts: Facts, now: float, trouble: str = "") -> Readiness:
        """Judge. `trouble`: what keeps records from their targets just now, a cause for all that do not move."""
        reasons = []
        if facts.not_member:
            reasons.append(f"not a member of the consumer group: {facts.not_member}")
        if facts.recovering:
            reasons.append("the tables are being recovered")
        if facts.silent_s > SILENT_S:
            reasons.append(f"the consumer has not answered for {facts.silent_s:.0f} s")
        waiting = []
        stands: dict[int, tuple[tuple[int | None, int | None], float]] = {}
        for at in facts.partitions:
            place = (at.unfinished_from, at.uncommitted_to)
            seen, since = self._stands.get(at.partition, (None, now))
            stands[at.partition] = (place, since if seen == place else now)
            still_s = now - stands[at.partition][1]
            cause = at.cause or (trouble if at.unfinished_from is not None else "")
            if cause:
                waiting.append((at.partition, cause))
            elif place != (None, None) and still_s > STILL_S:
                what = "is unfinished" if at.unfinished_from is not None else "is not committed"
                offset = at.unfinished_from if at.unfinished_from is not None else at.uncommitted_to
                reasons.append(
                    f"staging partition {at.partition} has stood still for {still_s:.0f} s: offset {offset} {what}"
                )
        self._stands = stands
        return Readiness(tuple(reasons), tuple(waiting))
