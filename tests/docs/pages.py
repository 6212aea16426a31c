"""The pages of the documentation as programs: their code blocks, and running them from top to bottom.

Owns: the conventions of docs/developing.md, the shell that a page runs in. Must not know: what any page is about.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tests.packaging.environments import ROOT, without_settings

__all__ = ["PAGES", "Block", "blocks", "run_page"]

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_BLOCK = re.compile(
    r"^(?:<!-- (?P<note>[^\n]*?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
_FILE = re.compile(r"(?:#|//|--) ([\w./-]+\.\w+)\n")
_ADDRESS = "localhost:9092"
_LIMIT_S = 150


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced code block. `note`: the comment before it; `file`: the name in its first line."""

    language: str
    text: str
    note: str
    file: str


def blocks(page: Path) -> list[Block]:
    """The code blocks of a page, in order."""
    found = []
    for match in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        name = _FILE.match(match["text"])
        found.append(Block(match["language"], match["text"], match["note"] or "", name[1] if name else ""))
    return found


def run_page(page: Path, folder: Path, bootstrap: str, namespace: str) -> str:
    """Run a page in an empty folder; what its commands printed. Fails with that where a step fails."""
    steps = [_step(block, folder, bootstrap) for block in blocks(page)]
    script = "set -euo pipefail\n" + "".join(steps)
    here = str(Path(sys.executable).parent)
    env = without_settings() | {
        "PATH": f"{here}{os.pathsep}{os.environ['PATH']}",
        "STREAMING_NAMESPACE": namespace,
        "STREAMING_WEB_PORT": str(10_000 + int.from_bytes(os.urandom(2)) % 5_000),
        "DJANGO_SETTINGS_MODULE": "",
    }
    with subprocess.Popen(
        ["bash", "-c", script],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            status = shell.wait(_LIMIT_S)
        except subprocess.TimeoutExpired:
            status = -1
        finally:
            _end(shell)
        printed = shell.stdout.read() if shell.stdout is not None else ""
    assert status == 0, f"{page.name} ended with {status}:\n{printed}\n{_logs(folder)}"
    return printed


def _step(block: Block, folder: Path, bootstrap: str) -> str:
    """Write a block's file, or check it, or give the lines that run it."""
    text = block.text.replace(_ADDRESS, bootstrap)
    if block.note.startswith("not run: "):
        return ""
    if block.file:
        target = folder / block.file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        return ""
    match block.language:
        case "sh" if block.note == "in the background":
            return f"{{\n{text}}} >background.log 2>&1 &\n"
        case "sh":
            return text
        case "python":
            return f"python - <<'END_OF_BLOCK'\n{text}END_OF_BLOCK\n"
        case "toml":
            tomllib.loads(text)
        case "json":
            json.loads(text)
        case "text":
            pass
        case other:
            raise AssertionError(
                f"a block of the language {other!r} says neither how it is run nor that it is not"
            )
    return ""


def _end(shell: subprocess.Popen[str]) -> None:
    """End what runs in the background: as a deploy does, then for good."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(shell.pid, number)
        except ProcessLookupError:
            return
        if number is signal.SIGTERM:
            subprocess.run(
                ["timeout", "20", "bash", "-c", f"while kill -0 -{shell.pid}; do sleep 0.1; done"],
                capture_output=True,
                check=False,
            )


def _logs(folder: Path) -> str:
    log = folder / "background.log"
    return "\n".join(log.read_text(errors="replace").splitlines()[-40:]) if log.exists() else ""
