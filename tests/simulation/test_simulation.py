"""Seeded worlds: shipped workers and services against a simulated cluster, with faults, judged by oracles.

Each runs in an interpreter of its own, whose time is virtual from the first import on.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAILED = [
    line
    for line in (Path(__file__).parent / "seeds.txt").read_text().splitlines()
    if not line.startswith("#")
]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The simulation's own command."""
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, 2_000, 500))
def test_nothing_is_lost_and_order_holds_whatever_fails(first: int) -> None:
    """T5, T6, S2, S6, S7, C3, Q4: acks lost and late, brokers down, leaders unknown, rebalances, crashes, clock jumps.

    Every event ends where it must, in order, nothing is committed before, and nothing comes twice without a fault.
    """
    ended = run(str(first), "500")
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("line", FAILED)
def test_what_once_failed_holds(line: str) -> None:
    """T5, T6: a seed that once failed holds."""
    kind, seed, *_ = line.split()
    ended = run(seed, "1", "--kind", kind)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_seed_replays_exactly() -> None:
    """The same seed is the same world, alone or after others: what fails in a campaign fails again on a desk."""
    alone = run("7", "1").stdout
    assert alone == run("7", "1").stdout
    assert "digest" in alone
    assert alone.splitlines()[0] in run("5", "3", "--each").stdout
