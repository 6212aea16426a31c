"""Numbered folders under `OUTBOX_DIR`: each process of a service locks one (S9); what a dead one left is adopted.

Owns: names, locks, permissions. Must not know: what lies in a slot.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self, TypeVar

from pipeline.outbox.errors import NoRoomForOutbox, OutboxUnavailable

__all__ = ["Orphans", "Slot", "slot_folders", "take_slot"]

log = logging.getLogger(__name__)

T = TypeVar("T")
_MAX_SLOTS = 4_096
_PREFIX = "slot-"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

_held: weakref.WeakSet[Slot] = weakref.WeakSet()


class Slot:
    """A folder that this process holds, until it is released or the process ends, however it ends."""

    def __init__(self, folder: Path, descriptor: int) -> None:
        self.folder = folder
        self._descriptor: int | None = descriptor
        _held.add(self)

    @classmethod
    def lock(cls, folder: Path) -> Self | None:
        """The slot, or None where another process holds it. Does not block."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return cls(folder, descriptor)

    def release(self) -> None:
        """Let go of the slot. Idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def take_slot(directory: Path) -> Slot:
    """Lock the lowest free slot; one that a dead process left comes with its rows, which then go first.

    Raises `OutboxUnavailable` where the folder cannot be used, `NoRoomForOutbox` where the disk is too full for one.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in range(_MAX_SLOTS):
            slot = Slot.lock(directory / f"{_PREFIX}{number:04d}")
            if slot is not None:
                return slot
    except OSError as error:
        if error.errno in _FULL:
            raise NoRoomForOutbox(str(directory), error) from error
        raise OutboxUnavailable(
            str(directory), f"{error.strerror or error} (STREAMING_OUTBOX_DIR)"
        ) from error
    raise OutboxUnavailable(str(directory), f"all {_MAX_SLOTS} slots are held by living processes")


def slot_folders(directory: Path) -> list[Path]:
    """The folders of all slots, by number."""
    return sorted(directory.glob(f"{_PREFIX}*"))


class Orphans:
    """Finds the slots of processes that died. One found empty is not looked into again until its files change."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen: dict[Path, int] = {}

    def take(self) -> Iterator[Slot]:
        """Lock the slots that nobody holds and that may have rows, one after the other, by number. One that cannot be
        looked into now is left for the next time.

        The caller releases each before it asks for the next.
        """
        for folder in self._look(lambda: slot_folders(self._directory)) or ():
            slot = self._look(lambda folder=folder: self._free(folder))  # type: ignore[misc]
            if slot is not None:
                yield slot

    def emptied(self, slot: Slot) -> None:
        """The slot has been looked into and closed; nothing is left in it, unless somebody has taken it since."""
        again = Slot.lock(slot.folder)
        if again is not None:
            self._seen[slot.folder] = _changed_at(slot.folder)
            again.release()

    def _free(self, folder: Path) -> Slot | None:
        if not (folder / "rows").is_dir() or self._seen.get(folder) == _changed_at(folder):
            return None
        return Slot.lock(folder)

    def _look(self, look: Callable[[], T]) -> T | None:
        try:
            return look()
        except OSError as error:
            log.warning("outbox.not_looked_into folder=%s error=%r", self._directory, error)
            return None


def _changed_at(folder: Path) -> int:
    return (folder / "rows").stat().st_mtime_ns


def _after_fork() -> None:
    # The lock is the parent's; a child that kept it open would keep the slot locked when the parent is gone.
    for slot in list(_held):
        slot.release()


os.register_at_fork(after_in_child=_after_fork)
