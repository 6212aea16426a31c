"""What probes tell that ran all the time, while what was beside them changed: their latencies, by what that was. Pure.

Owns: which probe belongs to which window, percentiles, how one side compares with another and how sure that is. Must
not know: who stages, what is beside them.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = ["ProbeLost", "Window", "in_windows", "percentile", "ratio", "ratio_within"]

_RESAMPLES = 500


class Window(NamedTuple):
    """From when to when, seconds since 1970, and what was beside the probes then."""

    beside: str
    begin: float
    end: float


class ProbeLost(Exception):
    """A probe never arrived, or not yet."""


def in_windows(lines: Iterable[str], windows: Sequence[Window]) -> list[list[float]]:
    """For each window the latencies, in milliseconds, of the probes that were staged in it.

    `lines`: of each probe that arrived its number, when it was staged, and how long it took, in seconds; of one that
    came twice the first counts. Raises `ProbeLost`.
    """
    probes: dict[int, tuple[float, float]] = {}
    for line in lines:
        number, at, took = line.split()
        probes.setdefault(int(number), (float(at), float(took)))
    end = max(window.end for window in windows)
    behind = min((number for number, (at, _) in probes.items() if at >= end), default=None)
    if behind is None:
        raise ProbeLost("none has arrived that was staged behind the last window: ask later")
    if missing := set(range(behind)).difference(probes):
        raise ProbeLost(f"{len(missing)} have not arrived: {sorted(missing)[:10]}")
    return [
        [1_000 * took for at, took in probes.values() if window.begin <= at < window.end]
        for window in windows
    ]


def percentile(rounds: Iterable[Sequence[float]], share: float) -> float:
    """The value below which this share of all that was measured in these rounds lies."""
    values = sorted(itertools.chain.from_iterable(rounds))
    return values[int(share * len(values))]


def ratio(ours: Sequence[Sequence[float]], base: Sequence[Sequence[float]]) -> float:
    """The p99 of all our rounds, as a share of that of all rounds of the base."""
    return percentile(ours, 0.99) / percentile(base, 0.99)


def ratio_within(ours: Sequence[Sequence[float]], base: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Between which two values that ratio lies in nine of ten draws of as many rounds: how much is left to chance."""
    draw = random.Random(7)
    drawn = sorted(
        ratio(draw.choices(ours, k=len(ours)), draw.choices(base, k=len(base))) for _ in range(_RESAMPLES)
    )
    return drawn[_RESAMPLES // 20], drawn[-_RESAMPLES // 20]
