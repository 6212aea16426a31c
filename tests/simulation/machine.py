"""The machine: one event loop on virtual time, and processes on it that can be ended between any two effects.

Owns: scheduling, who belongs to which process, ending one as `kill -9` does. Must not know: Kafka, what runs.

A process is a context variable: every task, timer and callback inherits it from whoever made it. What belongs to
a dead process is never run again, so that none of its clean-up happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import itertools
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from functools import partial
from typing import Any, TypeVar, TypeVarTuple, Unpack

from tests.simulation.virtual_time import TIME

__all__ = ["Deadlock", "Loop", "Process", "current_process"]

T = TypeVar("T")
H = TypeVar("H", bound=asyncio.Handle)
Ts = TypeVarTuple("Ts")

_TURN_S = 1e-5
"""What a turn of the loop takes."""
_MOST_TURNS = 400_000
"""Far more than any world takes."""

_process: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class Deadlock(Exception):
    """Nobody will ever do anything again, or somebody does without end."""


class _Future(asyncio.Future[Any]):
    """asyncio's, but a set of them is walked in the order of their making, not of where they lie in memory: a seed
    means the same each time."""

    def __init__(self, *, loop: Loop) -> None:
        super().__init__(loop=loop)
        self._number = loop.number()

    def __hash__(self) -> int:
        """Its number."""
        return self._number


class _Task(asyncio.Task[Any]):
    """The same for tasks."""

    def __init__(self, coro: Coroutine[Any, Any, Any], *, loop: Loop, **named: Any) -> None:
        self._number = loop.number()  # it is in a set before it is made
        super().__init__(coro, loop=loop, **named)

    def __hash__(self) -> int:
        """Its number."""
        return self._number


class _Idle:
    """Stands where a selector stands: instead of waiting for sockets, time passes."""

    def __init__(self) -> None:
        self._turns = 0

    def select(self, timeout: float | None) -> list[Any]:
        self._turns += 1
        if timeout is None or self._turns > _MOST_TURNS:
            raise Deadlock(f"after {self._turns} turns, at {TIME.now:.2f}")
        TIME.now += max(timeout, _TURN_S)
        return []


class Loop(asyncio.BaseEventLoop):
    """asyncio's own loop without sockets, threads and real time. It is every thread's loop."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = _Idle()
        self._clock_resolution = 1e-6
        self.over = False
        """Nothing is scheduled any more."""
        self.fibers: dict[Any, None] = {}
        """Threads of programs that have not ended."""
        self.start_thread: Callable[[Callable[[], None]], object] = self.call_soon
        """Runs the job of an executor."""
        self.before_a_thread_calls: Callable[[], None] = lambda: None
        """Others may run between a thread's last step and its call to this loop."""
        self.set_exception_handler(lambda *_: None)
        self.set_task_factory(lambda _, coro, **named: _Task(coro, loop=self, **named))
        self._numbers = itertools.count()

    def time(self) -> float:
        """Virtual time."""
        return TIME.now

    def number(self) -> int:
        """What tells one future or task from all others of this world."""
        return next(self._numbers)

    def create_future(self) -> asyncio.Future[Any]:
        """As asyncio's, but for its hash."""
        return _Future(loop=self)

    def call_soon(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """As asyncio's, but not for the dead."""
        if self._refuses(context):
            return _never(asyncio.Handle(callback, args, self, context))
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_soon_threadsafe(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """All threads are this one; what they say may take a moment."""
        self.before_a_thread_calls()
        return self.call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """As asyncio's, but not for the dead."""
        if self._refuses(context):
            return _never(asyncio.TimerHandle(when, callback, args, self, context))
        return super().call_at(when, callback, *args, context=context)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """What a thread of an executor would do."""
        assert executor is None
        future: asyncio.Future[T] = self.create_future()

        def work() -> None:
            try:
                result = func(*args)
            except Exception as error:  # noqa: BLE001 -- carried to whoever awaits it
                end = partial(future.set_exception, error)
            else:
                end = partial(future.set_result, result)
            self.before_a_thread_calls()
            if not future.done():
                end()

        self.start_thread(work)
        return future

    def bury(self, process: Process) -> None:
        """Nothing of it is run any more."""
        scheduled = [*self._ready, *self._scheduled]  # type: ignore[attr-defined]
        for handle in scheduled:
            if handle._context.get(_process) is process:
                handle.cancel()

    def dispose(self) -> None:
        """End the world: let go of every task without running any of it to an end."""
        self.over = True
        for fiber in list(self.fibers):
            fiber.kill()
        self._ready.clear()  # type: ignore[attr-defined]
        self._scheduled.clear()  # type: ignore[attr-defined]
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coroutine = task.get_coro()
            assert coroutine is not None
            with contextlib.suppress(BaseException):
                coroutine.close()
        self.close()
        gc.collect()

    def _refuses(self, context: contextvars.Context | None) -> bool:
        process = _process.get() if context is None else context.get(_process)
        return self.over or (process is not None and not process.alive)

    def _process_events(self, event_list: Any) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector."""


def _never(handle: H) -> H:
    handle._cancelled = True
    return handle


class Process:
    """One process of the world."""

    def __init__(self, name: str, loop: Loop) -> None:
        self.name = name
        self.loop = loop
        self.alive = True
        self.effects = 0
        """How often it touched the world outside: network and disk."""
        self.crash_at: int | None = None
        """It ends right before this effect."""
        self.on_death: list[Callable[[], None]] = []
        self._context = contextvars.copy_context()
        self._context.run(_process.set, self)

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Let it do something."""
        return self.loop.create_task(work, context=self._context.copy())

    def kill(self) -> None:
        """End it now, without any clean-up. Idempotent."""
        if self.alive:
            self.alive = False
            self.loop.bury(self)
            for tell in self.on_death:
                tell()

    def effect(self) -> bool:
        """Whether it lives to do what it is about to do to the world outside."""
        if self.alive:
            self.effects += 1
            if self.crash_at is not None and self.effects >= self.crash_at:
                self.kill()
        return self.alive


def current_process() -> Process | None:
    """Whose code this is; None: the world's own."""
    return _process.get()
