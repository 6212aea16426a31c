"""The real command line in processes of its own, and catalogs in folders to run it on.

Owns: starting `faust -A pipeline ...`, and reading its answer. Must not know: what any test is about.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "Answer", "Call", "catalog_folder", "run", "run_all"]

ROOT = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Call:
    """A command: its words after `faust -A pipeline`, and settings over the usual ones."""

    words: tuple[str, ...]
    settings: Mapping[str, str]
    cwd: Path = ROOT
    path: str = str(ROOT)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command answered."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document that stdout must be; fails where there is anything else on it."""
        return json.loads(self.out)

    def row(self, first: str) -> list[str]:
        """The cells of the one table row that begins with `first`."""
        (line,) = (line for line in self.out.splitlines() if line.split("  ")[0] == first)
        return [cell.strip() for cell in line.split("  ") if cell.strip()]


def run_all(*calls: Call) -> list[Answer]:
    """Run commands side by side, each in a process of its own; the answers in the order of the calls."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(_run, calls))


def run(*words: str, **settings: str) -> Answer:
    """Run one command."""
    return _run(Call(words, settings))


def _run(call: Call) -> Answer:
    """Start one process and wait for its end."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("STREAMING_")}
    settings = {
        "BROKERS": "127.0.0.1:1",  # nobody listens there
        "CATALOG": "catalog.examples.flights",
        "CLOUDEVENTS_SOURCE": "/tests/cli",
        **call.settings,
    }
    process = subprocess.run(
        [sys.executable, "-m", "faust", "-A", "pipeline", *call.words],
        cwd=call.cwd,
        env=inherited
        | {"PYTHONPATH": call.path}
        | {f"STREAMING_{name}": value for name, value in settings.items()},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    return Answer(process.returncode, process.stdout, process.stderr)


def catalog_folder(folder: Path, *definitions: Mapping[str, object], file: str = "events.toml") -> str:
    """Write definitions as a TOML catalog into `folder`, and return it as STREAMING_CATALOG takes it."""
    folder.mkdir(exist_ok=True)
    tables = []
    for definition in definitions:
        lines = [f"{name} = {_toml(value)}" for name, value in definition.items()]
        tables.append("\n".join(["[[definitions]]", *lines]))
    (folder / file).write_text("\n\n".join(tables) + "\n")
    return str(folder)


def _toml(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(name)} = {_toml(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)  # text, numbers and booleans are written alike
