"""Building the project and installing it into fresh environments, as a user of the wheel would.

Owns: the build, virtual environments, the code blocks of the README. Must not know: what any test is about.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["ROOT", "Environment", "build", "readme_files", "uv"]

ROOT = Path(__file__).resolve().parents[2]
_LOCK = ROOT / "requirements" / "dev.lock"
_UV = str(Path(sys.executable).with_name("uv"))
_FILE_BLOCK = re.compile(r"^```\w+\n# ([\w./-]+\.\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Environment:
    """A virtual environment in `folder` that holds what is installed into it and nothing else."""

    def __init__(self, folder: Path, python: str = sys.executable) -> None:
        self.folder = folder
        uv("venv", "--python", python, str(folder))

    @property
    def python(self) -> str:
        """Its interpreter."""
        return str(self.folder / "bin" / "python")

    @property
    def faust(self) -> str:
        """Its `faust` program."""
        return str(self.folder / "bin" / "faust")

    @property
    def site_packages(self) -> Path:
        """Where distributions are installed."""
        (found,) = self.folder.glob("lib/python*/site-packages")
        return found

    def install(self, *what: str) -> None:
        """Install distributions in the versions that the lock names."""
        uv("pip", "install", "--python", self.python, "--constraints", str(_LOCK), *what)

    def uninstall(self, name: str) -> None:
        """Remove one distribution."""
        uv("pip", "uninstall", "--python", self.python, name)

    def run(
        self, *arguments: str, cwd: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run its interpreter in a folder, with no settings of ours but those given."""
        return subprocess.run(
            [self.python, *arguments],
            cwd=cwd,
            env=without_settings() | dict(env or {}),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def without_settings() -> dict[str, str]:
    """This process's environment without settings of ours and without its import path."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("STREAMING_", "PYTHON", "VIRTUAL_ENV"))
    }


def build(into: Path, source: Path = ROOT) -> tuple[Path, Path]:
    """Build wheel and source archive of a checkout into a folder and return their paths."""
    _run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(into), str(source)])
    (wheel,) = into.glob("*.whl")
    (archive,) = into.glob("*.tar.gz")
    return wheel, archive


def readme_files() -> dict[str, str]:
    """The code blocks of the README that begin with a file's name, by that name."""
    return dict(_FILE_BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8")))


def uv(*arguments: str) -> None:
    """Run uv in the project's folder. Fails with what it printed."""
    _run([_UV, *arguments, "--quiet"])


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env=without_settings()
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
