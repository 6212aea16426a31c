"""Looking into the slots of an outbox folder without disturbing anybody, also into those of living processes.

Owns: opening the files for reading only. Must not know: who asks, how rows are shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.outbox.errors import OutboxUnavailable
from pipeline.outbox.files import ASIDE, DATABASE, ROW, aside_of, open_to_read, scan, stored_of
from pipeline.outbox.slots import Slot, slot_folders

__all__ = ["Found", "is_held", "rows_in", "slots_in"]


class Found(NamedTuple):
    """A row as it lies there: its sequence, when it was stored (seconds since 1970), its bytes; and why it was set
    aside, None where it waits."""

    sequence: int
    at: float
    data: bytes
    reason: str | None


def slots_in(directory: Path) -> list[Path]:
    """The folders of all slots that have files, by number."""
    return [folder for folder in slot_folders(directory) if (folder / DATABASE).is_dir()]


def is_held(folder: Path) -> bool:
    """Whether a living process holds the slot."""
    slot = Slot.lock(folder)
    if slot is None:
        return True
    slot.release()
    return False


def rows_in(folder: Path) -> Iterator[Found]:
    """The rows of a slot at this moment: those that wait, in order, then those that were set aside.

    Needs no room on the disk and takes no lock. Raises `OutboxUnavailable` where the files cannot be read.
    """
    try:
        database = open_to_read(folder / DATABASE)
    except Exception as error:
        raise OutboxUnavailable(str(folder), f"it cannot be read ({error})") from error
    try:
        for sequence, value in scan(database, ROW):
            yield Found(*stored_of(sequence, value), None)
        for sequence, value in scan(database, ASIDE):
            yield Found(*aside_of(sequence, value))
    finally:
        database.close()
