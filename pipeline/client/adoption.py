"""Adoption: a living process drains the outbox slots that dead processes of its service left (S9).

Owns: looking for orphans, one relay for each while it is drained. Must not know: the process's own outbox, calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from pipeline.client.relay import Relay
from pipeline.outbox.errors import OutboxDamaged, OutboxUnavailable
from pipeline.outbox.process import ProcessOutbox
from pipeline.outbox.protocol import Waiting
from pipeline.outbox.slots import Orphans, Slot

__all__ = ["Adoption"]

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 5.0


class Adoption:
    """Drains orphaned slots, one after the other, each in its order. `relay_of` gives a relay for an outbox."""

    def __init__(self, directory: Path, max_bytes: int, relay_of: Callable[[ProcessOutbox], Relay]) -> None:
        self._max_bytes = max_bytes
        self._relay_of = relay_of
        self._orphans = Orphans(directory)
        self._left: dict[Path, Waiting] = {}
        """What was left in the slots that were drained."""
        self._relay: Relay | None = None
        self.looked = asyncio.Event()
        """Set once every orphan that the first look found is empty."""

    def start(self) -> None:
        """Begin to look for orphans; the first look is at once."""
        self._task = asyncio.create_task(self._run(), name="stagepost-adopt")

    async def stop(self) -> None:
        """Stop at once. What is not acknowledged stays in its slot, for the next process that looks."""
        self._task.cancel()
        await asyncio.wait([self._task])

    @property
    def set_aside(self) -> int:
        """How many rows stand aside in the slots that were drained."""
        return sum(left.set_aside for left in self._left.values())

    @property
    def damage(self) -> list[OutboxDamaged]:
        """What was found damaged in them."""
        return [left.damage for left in self._left.values() if left.damage is not None]

    async def settle(self) -> None:
        """Hand over no more rows, and wait, without limit, for the end of those that are in flight."""
        if self._relay is not None:
            await self._relay.settle()

    async def _run(self) -> None:
        while True:
            for slot in self._orphans.take():
                try:
                    await self._drain(slot)
                except Exception as error:  # noqa: BLE001 -- whatever it is, what lies there is looked into again
                    log.warning("outbox.not_adopted slot=%s error=%r", slot.folder, error)
                finally:
                    slot.release()
            self.looked.set()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _drain(self, slot: Slot) -> None:
        outbox = await self._open(slot)
        relay = self._relay = self._relay_of(outbox)
        relay.start()
        try:
            await relay.until_empty()
            self._left[slot.folder] = await outbox.waiting()
        finally:
            await relay.stop()
            await outbox.close()
            self._relay = None
        self._orphans.emptied(slot)

    async def _open(self, slot: Slot) -> ProcessOutbox:
        opening = asyncio.ensure_future(asyncio.to_thread(ProcessOutbox, slot, self._max_bytes))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            with contextlib.suppress(OutboxUnavailable):
                await (await opening).close()
            raise
