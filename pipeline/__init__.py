"""Stagepost: `stage()` domain events; the worker delivers them as CloudEvents.

A service uses what stands in `__all__`; importing it loads the standard library only (N3). `app` is the
worker's Faust app, looked up by `faust -A pipeline`; only then is Faust loaded.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from pipeline.client.default import health, prepare, stage, stage_blocking, use_stager
from pipeline.types import NO_DATA, Health, Prepared, Shipped, Staged

if TYPE_CHECKING:
    import faust

    from pipeline.client.stager import NoopStager, Stager
    from pipeline.errors import StagepostError, is_caller_error
    from pipeline.outbox.protocol import Outbox, Stored
    from pipeline.settings import Settings

    app: faust.App

__all__ = [
    "NO_DATA",
    "Health",
    "NoopStager",
    "Outbox",
    "Prepared",
    "Settings",
    "Shipped",
    "Staged",
    "StagepostError",
    "Stager",
    "Stored",
    "app",
    "health",
    "is_caller_error",
    "prepare",
    "stage",
    "stage_blocking",
    "use_stager",
]

_HOME = {
    "NoopStager": "pipeline.client.stager",
    "Outbox": "pipeline.outbox.protocol",
    "Settings": "pipeline.settings",
    "StagepostError": "pipeline.errors",
    "Stager": "pipeline.client.stager",
    "Stored": "pipeline.outbox.protocol",
    "is_caller_error": "pipeline.errors",
}


if not TYPE_CHECKING:  # a type checker that saw this would let any name pass

    def __getattr__(name: str) -> object:
        if name == "app":
            return _worker_app()
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value: object = getattr(import_module(_HOME[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _worker_app() -> object:
    import sys
    from pathlib import Path

    from pipeline.neighbours import PackageClash

    # The `faust` command has the working folder on sys.path only while it imports this package; the worker
    # needs it for `agents`, and for a catalog that lies there.
    cwd = str(Path.cwd())
    if cwd not in sys.path:
        sys.path.insert(0, cwd)
    # Bad settings or a bad catalog end the command with what to do about it, not with a traceback. The error is
    # looked up late: its module needs the catalog, which may be the package that clashes.
    try:
        return import_module("pipeline.worker").app
    except PackageClash as error:
        raise SystemExit(str(error)) from None
    except import_module("pipeline.errors").StagepostError as error:
        raise SystemExit(str(error)) from None
