"""What can be wrong with an outbox.

Owns: the errors and their facts. Must not know: files, RocksDB.
"""

from __future__ import annotations

from pipeline.errors import StagepostError

__all__ = ["NoRoomForOutbox", "OutboxDamaged", "OutboxFull", "OutboxUnavailable"]


class OutboxUnavailable(StagepostError):
    """The outbox cannot take or give rows now; nothing stored is lost. `reason` says why."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"the outbox in {path} cannot be used: {reason}")


class OutboxFull(OutboxUnavailable):
    """No room: the disk is full or `STREAMING_OUTBOX_MAX_BYTES` is reached. Nothing was half written."""


class NoRoomForOutbox(OutboxFull):
    """The disk is so full that there is no outbox yet: nothing can be waiting in it."""

    def __init__(self, path: str, cause: Exception) -> None:
        super().__init__(path, f"there is no room for it, free some space ({cause})")


class OutboxDamaged(OutboxUnavailable):
    """The files are damaged; they were set aside under `kept` and left as they are."""

    def __init__(self, path: str, kept: str, reason: str) -> None:
        self.kept = kept
        super().__init__(path, f"its files are damaged and were kept in {kept}: {reason}")
