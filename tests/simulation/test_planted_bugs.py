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
    "pause-without-seek": {"T6"},
    "forget-an-overdue-batch": {
        "T5",
        "T6",
    },  # it is lost, or comes after its followers once a worker starts anew
    "no-await-on-the-dlq-write": {"T6"},
    "commit-out-of-order": {"T6"},
    "overtake-what-is-parked": {"T5"},
    "leave-a-row-behind": {"T6"},
    "overtake-the-outbox": {"S6"},
    "overtake-the-unknown": {"T5"},
    "park-without-end": {"P5"},
    "start-with-targets-only": {"C3"},
    "throw-a-damaged-row-away": {"T6"},
}
"""For each patch the rules that the oracle may find broken first."""
KINDS = {
    "overtake-the-unknown": "skew",
    "park-without-end": "full",
    "start-with-targets-only": "apart",
    "throw-a-damaged-row-away": "service",
}
"""The kind of world that a bug shows in, where it is a special one."""


@pytest.mark.parametrize("plant", sorted(path.stem for path in PLANTS.glob("*.patch")))
def test_a_planted_bug_is_caught(plant: str, tmp_path: Path) -> None:
    """T5, T6, S6, Q4: what breaks a promise is found, and named by its rule and a seed that replays."""
    for package in ("pipeline", "agents", "catalog", "tests/simulation", "tests/catalogs"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["git", "apply", str(PLANTS / f"{plant}.patch")], cwd=tmp_path, check=True)
    kind = ["--kind", KINDS[plant]] if plant in KINDS else []
    command = [sys.executable, "-m", "tests.simulation", "0", SEEDS, *kind]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=170, check=False)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    broken = set(re.findall(r"Violation\(['\"](\w+): ", ended.stdout))
    assert broken
    assert broken <= CAUGHT[plant], ended.stdout
