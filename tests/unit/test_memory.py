"""What glibc is told: what large buffers took goes back to the system once they are freed."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_HELD_MB = """
import sys, threading
from pathlib import Path
from pipeline.memory import give_back
if sys.argv[1] == "told":
    give_back()

def fetch_and_keep(kept):
    # Buffers like fetched batches, the largest first, and between them what lives on.
    for size in (4_000_000, 3_000_000, 2_000_000, 1_000_000):
        fetched = []
        for number in range(8):
            fetched.append(bytes(size))
            kept.append(bytes(2_000))

kept = []
for _ in range(4):
    threads = [threading.Thread(target=fetch_and_keep, args=(kept,)) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
print(int(Path("/proc/self/status").read_text().partition("RssAnon:")[2].split()[0]) // 1_000)
"""


def held_mb(told: str) -> int:
    """What a process holds after that."""
    done = subprocess.run(
        [sys.executable, "-c", _HELD_MB, told], capture_output=True, text=True, check=True, timeout=60
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what is told is told to glibc")
def test_freed_memory_goes_back() -> None:
    """Buffers that several threads have freed do not stay in heaps between what lives on, as they do untold."""
    assert held_mb("told") < 30 < held_mb("untold")
