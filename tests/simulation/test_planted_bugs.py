"""The oracle's own test: bugs planted in a copy of what is shipped, one patch each, and it catches every one.

A patch that does not apply any more fails its test: plant that bug anew where the code is now.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLANTS = Path(__file__).parent / "plants"
SEEDS = "110"
"""At most; most bugs show within the first few."""
CAUGHT = {
    "pause-without-seek": ("worker", {"T6"}),
    # It is lost, or comes after its followers once a worker starts anew.
    "forget-an-overdue-batch": ("worker", {"T5", "T6"}),
    "no-await-on-the-dlq-write": ("worker", {"T6"}),
    "commit-out-of-order": ("worker", {"T6"}),
    "overtake-what-is-parked": ("worker", {"T5"}),
    "leave-a-row-behind": ("service", {"T6"}),
    "overtake-the-outbox": ("service", {"S6"}),
    "count-a-row-off-too-soon": ("service", {"S6"}),
    "overtake-the-unknown": ("skew", {"T5"}),
    "park-without-end": ("full", {"P5"}),
    "start-with-targets-only": ("apart", {"C3"}),
    "count-nothing-behind-the-checkpoint": ("skew", {"T6"}),
    "throw-a-damaged-row-away": ("service", {"T6"}),
}
"""For each patch the kind of world it shows in, and the rules that the oracle may find broken first."""


@pytest.mark.parametrize("plant", sorted(path.stem for path in PLANTS.glob("*.patch")))
def test_a_planted_bug_is_caught(plant: str, tmp_path: Path) -> None:
    """T5, T6, S6, Q4: what breaks a promise is found, and named by its rule and a seed that replays."""
    for package in ("pipeline", "agents", "catalog", "tests/simulation", "tests/catalogs"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["git", "apply", str(PLANTS / f"{plant}.patch")], cwd=tmp_path, check=True)
    kind, rules = CAUGHT[plant]
    command = [sys.executable, "-m", "tests.simulation", "0", SEEDS, "--kind", kind]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=170, check=False)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    broken = set(re.findall(r"Violation\(['\"](\w+): ", ended.stdout))
    assert broken
    assert broken <= rules, ended.stdout
