"""Scratch folders of clusters: made locked, removed at the end, swept by the next one after a crash.

Owns: the folder, its lock and its removal. Must not know: what is kept in it.
The lock is an `flock` that the kernel drops with the last process that holds it. Guards inherit it,
so a folder that can be locked has no broker left that writes into it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from devtools.kafka import jars

RUN = jars.CACHE / "run"
_LOCK = "lock"


class Scratch:
    """A fresh, locked folder under `root`; `lock_fd` is to be passed on to processes that write into it."""

    def __init__(self, root: Path = RUN) -> None:
        root.mkdir(parents=True, exist_ok=True)
        with _only_one(root):
            _sweep(root)
            self.path = Path(tempfile.mkdtemp(prefix="kafka-", dir=root))
            self.lock_fd = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self.lock_fd, fcntl.LOCK_EX)

    def remove(self) -> None:
        """Delete the folder and give the lock back. To be called when nothing writes into it any more."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock_fd)


class _only_one:  # noqa: N801 - reads as a statement
    """Hold the root's own lock, so that no sweep meets a folder that is just being made."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __enter__(self) -> None:
        self._fd = os.open(self._root / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _sweep(root: Path) -> None:
    for folder in root.glob("kafka-*"):
        if not _in_use(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _in_use(folder: Path) -> bool:
    try:
        fd = os.open(folder / _LOCK, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
