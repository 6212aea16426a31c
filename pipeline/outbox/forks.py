"""RocksDB and fork(): closed before one, so that parent and child can both go on.

Owns: who is inside RocksDB, and what happens around a fork. Must not know: rows, slots.

RocksDB's threads belong to the process, not to a handle. A forked child has none of them and cannot start
others: what it writes is never flushed, and after 16 MB its writes wait for ever; its end aborts. So before a fork
every handle is closed and the threads are ended, which takes some 2 ms; the parent opens again at its next use.
A child that runs another program (`subprocess`) is no fork in this sense.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from rocksdict import Env

__all__ = ["Inside"]

_THREADS = Path("/proc/self/task")
_THREADS_END_S = 1.0

_registry = threading.Lock()
_all: weakref.WeakSet[Inside] = weakref.WeakSet()


class Inside:
    """Held, as a context manager, by whoever is inside RocksDB with one handle.

    `close` closes that handle, to be set once there is one; it may be opened again while this is held.
    """

    def __init__(self) -> None:
        self.close: Callable[[], None] = _nothing
        self._lock = threading.Lock()
        with _registry:
            _all.add(self)

    def __enter__(self) -> None:
        """Wait for a fork that is under way."""
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let forks happen."""
        self._lock.release()

    def stop(self) -> None:
        """Before a fork: wait until nobody is inside, close the handle, keep everybody out."""
        self._lock.acquire()
        self.close()

    def go_on(self) -> None:
        """After the fork."""
        self._lock.release()


def _nothing() -> None:
    """There is no handle yet."""


_stopped: list[Inside] = []


def _before_fork() -> None:
    _registry.acquire()
    _stopped.extend(_all)
    for inside in _stopped:
        inside.stop()
    if _stopped:
        environment = Env()
        environment.set_background_threads(0)
        environment.set_high_priority_background_threads(0)
        limit = time.monotonic() + _THREADS_END_S
        while _has_threads() and time.monotonic() < limit:
            time.sleep(0.0005)


def _after_fork() -> None:
    for inside in _stopped:
        inside.go_on()
    _stopped.clear()
    _registry.release()


def _has_threads() -> bool:
    """Whether RocksDB has threads in this process; never where the system does not tell."""
    return _THREADS.is_dir() and any(map(_is_of_rocksdb, _THREADS.iterdir()))


def _is_of_rocksdb(thread: Path) -> bool:
    try:
        return (thread / "comm").read_text().startswith("rocksdb:")
    except OSError:  # it has just ended
        return False


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
