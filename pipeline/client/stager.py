"""The one protocol of all stagers, and the choice between them.

Owns: `Stager`, its arguments and promises; `NoopStager`. Must not know: how a record is sent.
"""

from __future__ import annotations

import asyncio
import os
from datetime import datetime
from threading import get_ident
from types import TracebackType
from typing import Any, Self

from catalog import Catalog, load
from pipeline.clock import SYSTEM_CLOCK, Clock
from pipeline.errors import StagerClosed
from pipeline.ids import uuid7
from pipeline.outbox.protocol import Outbox
from pipeline.outbox.row import BadRow, decode, encode
from pipeline.packing import pack
from pipeline.settings import Settings
from pipeline.types import ExtraHeaders, Health, Payload, PolicyArgument, Prepared, Shipped, Staged

__all__ = ["NoopStager", "Stager", "load_catalog"]


def load_catalog(settings: Settings) -> Catalog:
    """The catalog the settings name. Raises `CatalogError` with every problem in it."""
    return load(settings.catalog, namespace=settings.namespace, policies=settings.event_policies)


_forks = 0
"""How many forks lie between this process and the first one. A look at this is cheaper than one at the process id."""


def _after_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_after_fork)


class Stager:
    """Makes events durable. `Stager(settings)` gives the one the settings ask for; use it as a context manager.

    A stager belongs to the event loop it was started on. `stage()` is awaited there; `stage_blocking()` may be
    called from any other thread. After `fork()` the child needs a stager of its own.
    """

    def __new__(cls, settings: Settings, **_: object) -> Stager:  # noqa: PYI034 -- it chooses a subclass
        """`Stager(settings)` chooses: a `KafkaStager`, or a `NoopStager` where staging is disabled."""
        if cls is Stager and not settings.enabled:
            cls = NoopStager
        elif cls is Stager:
            from pipeline.client.kafka_stager import KafkaStager  # it subclasses this module's class

            cls = KafkaStager
        return object.__new__(cls)

    def __init__(
        self, settings: Settings, *, catalog: Catalog | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._given_catalog = catalog
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        """Of the loop."""
        self._born_after = _forks
        self._closed = False

    async def stage(
        self,
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
        """Make one event durable (S1).

        In: the definition's key; the payload (`bytes` are sent byte for byte, a model or anything JSON is
        encoded once, `NO_DATA` sends a null value); tenant (at most 256 bytes) and subject (1,024), where empty
        means absent; `id` (256 bytes, default a new UUIDv7) and `time` (aware, default now), which never change
        afterwards; overrides of the delivery policy; headers of your own, at most 100 with values of at most 64 KiB,
        which reach the target.

        Out: `Staged`, once the event is durable. Decided within `STAGE_TIMEOUT_S`.

        Raises a caller error (`is_caller_error`) before anything is sent; `StagingUnavailable` where the event
        could not be made durable in time: its `unknown` says whether it may still arrive.
        """
        raise NotImplementedError

    async def health(self) -> Health:
        """How the stager is, from a real probe bounded by `STAGE_TIMEOUT_S`. Never raises."""
        raise NotImplementedError

    async def start(self) -> None:
        """Bind to the running loop. Idempotent."""
        self._loop = asyncio.get_running_loop()
        self._thread = get_ident()

    async def close(self) -> None:
        """End, within `CLOSE_TIMEOUT_S`. Idempotent."""
        self._closed = True

    def stage_blocking(
        self,
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
        """`stage()` for a thread without an event loop; blocks until the event is durable or the call fails.

        Raises what `stage()` raises, and `StagerClosed` where it would block the stager's own event loop.
        """
        raise NotImplementedError

    def prepare(
        self,
        key: str,
        payload: Payload,
        *,
        tenant: str | None = None,
        subject: str | None = None,
        id: str | None = None,  # noqa: A002 -- the CloudEvents name
        time: datetime | None = None,
        headers: ExtraHeaders | None = None,
    ) -> Prepared:
        """The checked event as a row for the application's own table (S11): it commits or vanishes with the
        application's transaction, and `relay` ships it afterwards.

        Does no I/O; safe from any thread. Raises a caller error, as `stage` does.
        """
        raise NotImplementedError

    async def relay(self, row: bytes) -> Staged:
        """Ship a row that `prepare` gave; delete it from the application's table once this returns.

        Out: `Staged` with `via="topic"`: acknowledged by the broker. Raises `BadRow` for bytes that are no row
        or a newer version's, `StagingRefused` for a row the broker never takes, `StagingUnavailable` otherwise:
        the row stays in the table and is relayed again. Relay rows of one key in order, one after the other.
        """
        raise NotImplementedError

    async def ship(self, outbox: Outbox) -> Shipped:
        """Ship every row that waits in an outbox of the service's own, each key in order, with its id unchanged.

        Returns once nothing waits any more. A row is deleted after the broker's acknowledgement only; one that
        can never be taken is set aside. Waits as long as no broker answers: bound it with `asyncio.timeout`, what
        is then left is shipped the next time. Raises what the outbox raises. One caller at a time for each outbox.
        """
        shipped = set_aside = 0
        while rows := await outbox.read(0, 1_000):
            for row in rows:
                try:
                    await self.relay(row.data)
                except BadRow as error:
                    await outbox.set_aside(row, str(error))
                    set_aside += 1
                else:
                    await outbox.delete([row])
                    shipped += 1
        return Shipped(shipped, set_aside)

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    def _loop_of_another_thread(self) -> asyncio.AbstractEventLoop:
        self._check_usable()
        loop = self._loop
        if loop is None or not loop.is_running():
            raise StagerClosed("the stager's event loop is not running: open a new stager")
        if _running_loop() is loop:
            raise StagerClosed("stage_blocking() would block its own event loop: await stage() there")
        return loop

    def _check_usable(self) -> None:
        if self._born_after != _forks:
            raise StagerClosed("the stager belongs to the parent process: open a new one after fork()")
        if self._closed:
            raise StagerClosed
        if self._loop is None:
            raise StagerClosed("the stager is not started: use `async with`, or await start()")


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class NoopStager(Stager):
    """Accepts everything and keeps nothing: `STREAMING_ENABLED=false`. Needs no catalog, checks nothing."""

    async def stage(self, key: str, payload: Payload, *, id: str | None = None, **_: Any) -> Staged:  # noqa: A002
        """Return at once with `via="noop"`; the event goes nowhere."""
        return self.stage_blocking(key, payload, id=id)

    def stage_blocking(self, key: str, payload: Payload, *, id: str | None = None, **_: Any) -> Staged:  # noqa: A002, ARG002
        """The same."""
        self._check_usable()
        return Staged(id or uuid7(), "noop")

    def prepare(self, key: str, payload: Payload, *, id: str | None = None, **_: Any) -> Prepared:  # noqa: A002, ARG002
        """A row without an event; `relay` forgets it."""
        self._check_usable()
        event_id = id or uuid7()
        return Prepared(event_id, encode(event_id, pack((b"", None, []))))

    async def relay(self, row: bytes) -> Staged:
        """Return at once with `via="noop"`; the row may be deleted. Raises `BadRow` for bytes that are no row."""
        self._check_usable()
        return Staged(decode(row).id, "noop")

    async def health(self) -> Health:
        """Healthy until it is closed: there is nothing that could be ill."""
        try:
            self._check_usable()
        except StagerClosed as error:
            return Health("down", str(error))
        return Health("healthy", "staging is disabled")
