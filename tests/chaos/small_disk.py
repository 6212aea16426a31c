"""A disk small enough to fill: a tmpfs of its own. Needs the right to mount.

Owns: mounting, filling, freeing. Must not know: who writes on it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["SmallDisk", "can_mount"]

_FILLER = "filler"
_CHUNK = bytes(1 << 16)


def can_mount() -> bool:
    """Whether this process may mount a tmpfs."""
    return os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"], check=False).returncode == 0


class SmallDisk:
    """A tmpfs of `megabytes` on a folder; a context manager that mounts and unmounts."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        self._megabytes = megabytes

    def fill(self) -> None:
        """Leave no byte free."""
        with (self.folder / _FILLER).open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(_CHUNK)
            except OSError:
                return

    def free(self) -> None:
        """Give the room back."""
        (self.folder / _FILLER).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        """Mount."""
        self.folder.mkdir(parents=True, exist_ok=True)
        options = f"size={self._megabytes}m"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)], check=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Unmount, also while somebody still has a file open there."""
        subprocess.run(["umount", "--lazy", str(self.folder)], check=False)
