"""The contenders in Go: franz-go, built here from the module proxy; and lib-streaming, where the proxy has it.

Owns: building, and saying what is absent. Must not know: other contenders.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.load import catalog, event, staging_headers
from benchmarks.programs import ROOT, Absent

__all__ = ["LIB_STREAMING", "build", "look_for_lib_streaming", "records"]

LIB_STREAMING = "github.com/LerianStudio/lib-streaming"
_SOURCE = Path(__file__).with_name("ways") / "go"
_PROGRAM = ROOT / ".cache" / "bench-go"
_LENGTH = struct.Struct(">I").pack


def build() -> Path:
    """The program, built on first use (a minute or two). Raises `Absent` where Go or a module is missing."""
    if not _PROGRAM.is_file() or _PROGRAM.stat().st_mtime < (_SOURCE / "main.go").stat().st_mtime:
        _PROGRAM.parent.mkdir(exist_ok=True)
        _go(["build", "-o", str(_PROGRAM), "."], _SOURCE)
    return _PROGRAM


def look_for_lib_streaming() -> None:
    """Raise `Absent` where the module proxy does not serve it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "go.mod").write_text("module look\n\ngo 1.25.0\n")
        _go(["get", f"{LIB_STREAMING}@v1.1.0"], Path(folder))


def records(numbers: range) -> Iterator[bytes]:
    """What the program reads: the staging records of these events."""
    fingerprint = catalog("bench").fingerprint
    for one in map(event, numbers):
        headers = staging_headers(one, fingerprint)
        parts: Sequence[bytes] = [part for name, value in headers for part in (name.encode(), value)]
        yield _fields(one.tenant.encode(), one.payload) + _LENGTH(len(headers)) + _fields(*parts)


def _fields(*values: bytes) -> bytes:
    return b"".join(_LENGTH(len(value)) + value for value in values)


def _go(arguments: list[str], folder: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise Absent("Go is not installed")
    done = subprocess.run(
        [go, *arguments], cwd=folder, capture_output=True, text=True, check=False, env=os.environ, timeout=600
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no word"]
        raise Absent(f"the Go module proxy does not serve it: {said[-1].strip()}")
