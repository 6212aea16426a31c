"""Threads that take turns: blocking code of the shipped modules, run step by step by the one event loop.

Owns: `Thread`, `Lock` and `Condition` as those modules use them, jobs of an executor, sleeping in virtual time.
Must not know: what they do. Each is an operating-system thread that runs only while the loop waits for it, so that
never two run at once, and what runs next is up to the loop.
"""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from tests.simulation.machine import Loop

__all__ = ["Condition", "Fiber", "Killed", "Threads", "doze", "nap"]


class Killed(BaseException):
    """The process of this thread is dead: it is unwound, and nothing it does counts."""


_here = threading.local()


class Fiber:
    """A thread of the simulated program."""

    def __init__(self, loop: Loop, target: Callable[[], Any]) -> None:
        self.loop = loop
        self.ended = False
        self._target = target
        self._killed = False
        self._context = contextvars.copy_context()
        self._turn, self._back = threading.Lock(), threading.Lock()
        self._turn.acquire()
        self._back.acquire()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._begun = False
        loop.fibers[self] = None

    def begin(self) -> None:
        """Let it run, from the next turn of the loop on."""
        self.loop.call_soon(self.resume)

    def resume(self) -> None:
        """Give it a turn, and wait until it pauses or ends. Only the loop calls this."""
        if self.ended:
            return
        if not self._begun:
            self._begun = True
            self._thread.start()
        self._turn.release()
        self._back.acquire()

    def pause(self) -> None:
        """Give the turn back. Only the thread itself calls this."""
        self._back.release()
        self._turn.acquire()
        if self._killed:
            raise Killed

    def kill(self) -> None:
        """Unwind it."""
        self._killed = True
        if self._begun:
            self.resume()
        self.ended = True
        self.loop.fibers.pop(self, None)

    def _run(self) -> None:
        self._turn.acquire()
        _here.fiber = self
        try:
            if not self._killed:
                self._context.run(self._target)
        except Killed:
            pass
        finally:
            self.ended = True
            self.loop.fibers.pop(self, None)
            self._back.release()


def nap(seconds: float) -> None:
    """Sleep, where this is a thread of a program; the loop itself never sleeps."""
    fiber: Fiber | None = getattr(_here, "fiber", None)
    if fiber is not None:
        fiber.loop.call_later(seconds, fiber.resume)
        fiber.pause()


def doze(seconds: float) -> None:
    """As `nap`, but not for a thread that holds a lock: what others do meanwhile does not heed it."""
    if not getattr(_here, "locks", 0):
        nap(seconds)


class _Lock:
    """Stands for `threading.Lock`. There is nothing to lock: nobody else runs while a thread holds one."""

    def __enter__(self) -> None:
        """Take it."""
        _here.locks = getattr(_here, "locks", 0) + 1

    def __exit__(self, *_: object) -> None:
        """Let go of it."""
        _here.locks -= 1


class Condition:
    """Stands for `threading.Condition`: its lock is one of these."""

    def __init__(self, loop: Loop, lock: _Lock) -> None:
        self._loop = loop
        self._lock = lock
        self._waiting: deque[Fiber] = deque()

    def __enter__(self) -> None:
        """Take its lock."""
        self._lock.__enter__()

    def __exit__(self, *_: object) -> None:
        """Let go of it."""
        self._lock.__exit__()

    def wait(self, timeout: float | None = None) -> None:
        """Wait to be notified."""
        fiber: Fiber = _here.fiber
        self._waiting.append(fiber)
        if timeout is not None:
            self._loop.call_later(timeout, self._wake, fiber)
        fiber.pause()

    def notify(self) -> None:
        """Wake one that waits."""
        if self._waiting:
            self._loop.call_soon(self._wake, self._waiting[0])

    def _wake(self, fiber: Fiber) -> None:
        if fiber in self._waiting:
            self._waiting.remove(fiber)
            fiber.resume()


class Threads:
    """Stands for the module `threading` where a shipped module uses it."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def Lock(self) -> _Lock:  # noqa: N802 -- threading's name
        """A lock of this world."""
        return _Lock()

    def Condition(self, lock: _Lock) -> Condition:  # noqa: N802 -- threading's name
        """A condition of this world."""
        return Condition(self._loop, lock)

    def Thread(self, target: Callable[[], Any], **_: Any) -> _Thread:  # noqa: N802 -- threading's name
        """A thread of this world."""
        return _Thread(Fiber(self._loop, target))


class _Thread:
    def __init__(self, fiber: Fiber) -> None:
        self._fiber = fiber

    def start(self) -> None:
        """Begin."""
        self._fiber.begin()

    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return not self._fiber.ended
