"""The outboxes of this process: one for each folder, opened by the first stager that needs it, closed by the last.

Owns: who uses which. Must not know: how rows are stored. After fork() the child starts with none.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from pipeline.outbox.process import ProcessOutbox
from pipeline.outbox.slots import Slot, take_slot

__all__ = ["let_go", "shared"]

_shared: dict[Path, ProcessOutbox] = {}
_sharing = threading.Lock()


def shared(directory: Path, max_bytes: int) -> ProcessOutbox:
    """The outbox of this process in that folder, opened on first use. Blocks then. Raises `OutboxUnavailable`."""
    with _sharing:
        outbox = _shared.get(directory)
        if outbox is None:
            outbox = _shared[directory] = _opened(take_slot(directory), max_bytes)
        outbox.users += 1
        return outbox


def _opened(slot: Slot, max_bytes: int) -> ProcessOutbox:
    try:
        return ProcessOutbox(slot, max_bytes)
    except BaseException:
        slot.release()  # else each attempt would take another slot, and nobody could adopt the rows in this one
        raise


async def let_go(outbox: ProcessOutbox) -> None:
    """The caller needs it no more; where nobody does, it is closed when this returns."""
    with _sharing:
        outbox.users -= 1
        if outbox.users:
            return
        for directory in [known for known, kept in _shared.items() if kept is outbox]:
            del _shared[directory]
    await outbox.close()


def _after_fork() -> None:
    global _sharing
    _shared.clear()
    _sharing = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
