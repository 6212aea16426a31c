"""What a service's own tests need: a stager in memory, a clock that is set by hand, and a pytest plugin.

Importing this package loads the standard library only; the names load what they need when first used, for the
plugin is imported by every pytest run of an environment that has Stagepost.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.testing.clock import SteppingClock
    from pipeline.testing.event import StagedEvent
    from pipeline.testing.memory import MemoryStager

__all__ = ["MemoryStager", "StagedEvent", "SteppingClock"]

_HOME = {"MemoryStager": "memory", "StagedEvent": "event", "SteppingClock": "clock"}

if not TYPE_CHECKING:  # a type checker that saw this would let any name pass

    def __getattr__(name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value: object = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
