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
    spec = importlib.util.find_spec(package)
    origin = Path(spec.origin).resolve() if spec is not None and spec.origin else None
    if origin is None:
        raise PackageClash(package, "nowhere", str(home))
    if origin.parent.parent != home or _MARK not in origin.read_text(encoding="utf-8", errors="replace"):
        raise PackageClash(package, str(origin.parent), str(home))
