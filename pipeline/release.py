"""Which release this is. Owns: that answer, also for a plain checkout. Must not know: who asks."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["release"]


def release() -> str:
    """The version of the installed distribution; `0+checkout` where none is installed (N2)."""
    try:
        return version("stagepost")
    except PackageNotFoundError:
        return "0+checkout"
