"""`make bench-check`: has a ratio become worse by more than a quarter since the committed baseline?

Owns: the comparison, and the second try that noise deserves. Must not know: how anything is measured.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.results import RATIOS

__all__ = ["BASELINE", "LIMIT", "check", "worse"]

BASELINE = Path(__file__).with_name("baseline.json")
LIMIT = 0.25


def worse(found: Mapping[str, float], baseline: Mapping[str, float]) -> list[str]:
    """The names of the ratios that are worse than the baseline by more than `LIMIT`, or that are missing."""
    by_name = {ratio.name: ratio for ratio in RATIOS}
    return [
        name
        for name, before in baseline.items()
        if name not in found or by_name[name].is_worse(found[name], before, LIMIT)
    ]


def check(measure: Callable[[], Mapping[str, float]]) -> int:
    """Measure and compare; where something is worse measure once more, and believe the better. The exit status."""
    baseline: dict[str, float] = json.loads(BASELINE.read_text())
    found = dict(measure())
    bad = worse(found, baseline)
    if bad:
        sys.stdout.write(f"worse, measuring once more: {', '.join(bad)}\n")
        again = measure()
        found |= {name: again[name] for name in bad if name in again}
        bad = worse(found, baseline)
    for name, before in baseline.items():
        mark = "WORSE" if name in bad else "ok"
        sys.stdout.write(f"{mark:6} {found.get(name, float('nan')):8.2f} (baseline {before:.2f})  {name}\n")
    return int(bool(bad))
