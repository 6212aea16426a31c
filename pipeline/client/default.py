"""The stager behind `from pipeline import stage`: found or made where the call is made.

Owns: one stager per event loop, one more on a thread of its own for blocking callers, the life of both.
Must not know: how staging works. Importing this module loads nothing but the standard library (N3).

A stager's sockets belong to one event loop, so each loop that calls `stage()` has one; in a service that is
one. It is closed when its loop ends. After `fork()` the child starts with none.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from pipeline.types import ExtraHeaders, Health, Payload, PolicyArgument, Prepared, Staged

if TYPE_CHECKING:
    from pipeline.client.stager import Stager

__all__ = ["health", "prepare", "stage", "stage_blocking", "use_stager"]


class _Kept(NamedTuple):
    stager: Stager
    keeper: AsyncIterator[None]


class _Defaults:
    """All stagers of this process that nobody holds."""

    def __init__(self) -> None:
        self.by_loop: dict[asyncio.AbstractEventLoop, _Kept] = {}
        self.starting: dict[asyncio.AbstractEventLoop, asyncio.Task[Stager]] = {}
        self.blocking: _BlockingLoop | None = None
        self.lock = threading.Lock()
        self.chosen: Stager | None = None


_defaults = _Defaults()


def _after_fork() -> None:
    global _defaults
    _defaults = _Defaults()


os.register_at_fork(after_in_child=_after_fork)


def use_stager(stager: Stager | None) -> Stager | None:
    """Let `stage()` and `stage_blocking()` of this process go to the given stager; None: back to the settings'.

    For tests, and for services that open a stager themselves. Returns the one that was used before, if any.
    """
    previous, _defaults.chosen = _defaults.chosen, stager
    return previous


async def stage(
    key: str,
    payload: Payload,
    *,
    tenant: str | None = None,
    subject: str | None = None,
    id: str | None = None,  # noqa: A002 -- the CloudEvents name
    time: datetime | None = None,
    policy: PolicyArgument = None,
    headers: ExtraHeaders | None = None,
) -> Staged:
    """Make one event durable; the one call a service needs. See `pipeline.client.stager.Stager.stage`.

    The first call on an event loop reads the settings and starts a stager for it. Raises `SettingsError` or
    `CatalogError` there.
    """
    stager = _defaults.chosen or await _stager_of_this_loop()
    return await stager.stage(
        key, payload, tenant=tenant, subject=subject, id=id, time=time, policy=policy, headers=headers
    )


def stage_blocking(
    key: str,
    payload: Payload,
    *,
    tenant: str | None = None,
    subject: str | None = None,
    id: str | None = None,  # noqa: A002 -- the CloudEvents name
    time: datetime | None = None,
    policy: PolicyArgument = None,
    headers: ExtraHeaders | None = None,
) -> Staged:
    """`stage()` for code without an event loop: blocks the calling thread. Safe from any thread."""
    stager = _defaults.chosen or _blocking_loop().stager()
    return stager.stage_blocking(
        key, payload, tenant=tenant, subject=subject, id=id, time=time, policy=policy, headers=headers
    )


def prepare(
    key: str,
    payload: Payload,
    *,
    tenant: str | None = None,
    subject: str | None = None,
    id: str | None = None,  # noqa: A002 -- the CloudEvents name
    time: datetime | None = None,
    headers: ExtraHeaders | None = None,
) -> Prepared:
    """The checked event as a row for the application's own table (S11). See `pipeline.client.stager.Stager.prepare`.

    Does no I/O, but for the first call, which starts the stager of blocking callers. Safe from any thread.
    """
    stager = _defaults.chosen or _blocking_loop().stager()
    return stager.prepare(key, payload, tenant=tenant, subject=subject, id=id, time=time, headers=headers)


async def health() -> Health:
    """How the stager of this event loop is, from a real probe."""
    stager = _defaults.chosen or await _stager_of_this_loop()
    return await stager.health()


async def _stager_of_this_loop() -> Stager:
    loop = asyncio.get_running_loop()
    kept = _defaults.by_loop.get(loop)
    if kept is not None:
        return kept.stager
    starting = _defaults.starting.get(loop)
    if starting is None:
        _forget_closed_loops()
        starting = _defaults.starting[loop] = loop.create_task(_start(loop), name="stagepost-start")
    return await asyncio.shield(starting)  # others wait for it too, when this caller is cancelled


async def _start(loop: asyncio.AbstractEventLoop) -> Stager:
    try:
        stager = _make()
        await stager.start()
        keeper = _keep(stager, loop)
        await anext(keeper)
        _defaults.by_loop[loop] = _Kept(stager, keeper)
    except SystemExit as error:
        # In a task it would end the event loop, and a thread that waits for it would wait for ever.
        raise RuntimeError("the catalog ends the program when it is imported") from error
    finally:
        _defaults.starting.pop(loop, None)
    return stager


def _make() -> Stager:
    from pipeline.client.stager import Stager  # the first call pays for it, not the import
    from pipeline.settings import Settings

    return Stager(Settings.from_env(os.environ))


async def _keep(stager: Stager, loop: asyncio.AbstractEventLoop) -> AsyncIterator[None]:
    # asyncio.run() and its like close all async generators before they close the loop: the one hook that a
    # library has to end what it keeps on somebody else's loop.
    try:
        yield
    finally:
        await stager.close()
        _defaults.by_loop.pop(loop, None)


def _forget_closed_loops() -> None:
    # Those that were closed without their async generators.
    for loop in list(_defaults.by_loop):
        if loop.is_closed():
            del _defaults.by_loop[loop]


class _BlockingLoop:
    """An event loop on a daemon thread, for callers that have none."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._stager: Stager | None = None
        self._thread = threading.Thread(target=self._run, name="stagepost-blocking", daemon=True)
        self._thread.start()
        atexit.register(self.stop)

    def stager(self) -> Stager:
        """The stager on this loop; the first call starts it. Raises `SettingsError` or `CatalogError`."""
        stager = self._stager
        if stager is None:
            started = asyncio.run_coroutine_threadsafe(_stager_of_this_loop(), self.loop)
            stager = self._stager = started.result()
        return stager

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    def stop(self) -> None:
        """Close the stager and end the thread."""
        if self._thread.is_alive() and _defaults.blocking is self:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()


def _blocking_loop() -> _BlockingLoop:
    blocking = _defaults.blocking
    if blocking is None:
        with _defaults.lock:
            blocking = _defaults.blocking
            if blocking is None:
                blocking = _defaults.blocking = _BlockingLoop()
    return blocking
