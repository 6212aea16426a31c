"""Top-level packages with everyday names can clash: other distributions install an `agents` or a `catalog` too.

Owns: telling that a package found on `sys.path` is not ours. Must import nothing of ours: it runs first.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

__all__ = ["PackageClash", "check_neighbour"]

_MARK = '__distribution__ = "stagepost"'


class PackageClash(ImportError):
    """Another distribution's package stands where ours should be.

    An `ImportError` and not a `StagepostError`, for that base class lives in the package that may be missing.
    """

    def __init__(self, package: str, found: str, expected: str) -> None:
        self.package = package
        self.found = found
        self.expected = expected
        super().__init__(
            f"the package {package!r} found at {found} is not Stagepost's (expected in {expected}): another "
            f"distribution or folder named {package!r} comes first on sys.path, or was installed over it. "
            "Uninstall or rename it, or give Stagepost an environment of its own",
            name=package,
        )


def check_neighbour(package: str) -> None:
    """Raise `PackageClash` unless the package that an import would find lies beside `pipeline` and bears our mark.

    It is not imported: a foreign one may do anything then.
    """
    home = Path(__file__).resolve().parent.parent
    found = _found(package)
    if found != home / package / "__init__.py" or not _is_ours(found):
        raise PackageClash(package, str(found or "nowhere"), str(home))


def _is_ours(init: Path) -> bool:
    return _MARK in init.read_text(encoding="utf-8", errors="replace")


def _found(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    if spec is None:
        return None
    # A folder without an `__init__.py` has no origin.
    places = [spec.origin] if spec.origin else spec.submodule_search_locations
    return next((Path(place).resolve() for place in places or ()), None)
