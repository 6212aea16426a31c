"""Packages with everyday names: a foreign `catalog` or `agents` in front of ours is named (N1, N3)."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.neighbours import PackageClash, check_neighbour

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("package", ["catalog", "agents"])
def test_ours_pass(package: str) -> None:
    """What lies beside `pipeline` is ours."""
    check_neighbour(package)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("decoy/__init__.py", ""),
        ("decoy.py", ""),
        ("decoy/__init__.py", '__distribution__ = "stagepost"'),
        ("decoy/inner.py", ""),
    ],
    ids=["package", "module", "ours-elsewhere", "bare-folder"],
)
def test_where_the_foreign_one_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str
) -> None:
    """A package, a module, another copy of ours, or a bare folder: each is named with its place."""
    target = tmp_path / file
    target.parent.mkdir(exist_ok=True)
    target.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    with pytest.raises(PackageClash) as caught:
        check_neighbour("decoy")
    assert caught.value.package == "decoy"
    assert str(tmp_path / file.partition("/")[0]) in caught.value.found
    assert str(ROOT) in str(caught.value)


def test_missing() -> None:
    """A package that is nowhere is a clash too: an import error that says what was expected."""
    with pytest.raises(PackageClash, match="nowhere"):
        check_neighbour("no_such_package_of_ours")
    assert issubclass(PackageClash, ImportError)


def run(tmp_path: Path, decoy: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a program with a foreign package of that name first on `sys.path`."""
    folder = tmp_path / decoy
    folder.mkdir()
    (folder / "__init__.py").write_text("raise SystemExit('the foreign package was run')")
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    return subprocess.run(
        command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )


STAGE = "from pipeline import stage_blocking; stage_blocking('a.b', None)"
WORKER = (sys.executable, "-m", "faust", "-A", "pipeline", "worker", "-l", "info")


@pytest.mark.parametrize(
    ("decoy", "command"),
    [("catalog", (sys.executable, "-c", STAGE)), ("catalog", WORKER), ("agents", WORKER)],
    ids=["service", "worker-catalog", "worker-agents"],
)
def test_the_clash_is_named(tmp_path: Path, decoy: str, command: tuple[str, ...]) -> None:
    """A service and a worker both end with the name and place of the package in the way, which is not run."""
    done = run(tmp_path, decoy, *command)
    assert done.returncode != 0
    said = done.stderr + done.stdout
    assert f"the package {decoy!r} found at {tmp_path / decoy}" in said, said
    assert "the foreign package was run" not in said


def test_a_service_does_not_need_agents(tmp_path: Path) -> None:
    """A foreign `agents` does not trouble a service: it never imports it (N3)."""
    program = (
        "from pipeline import stage, Settings, Stager; from pipeline.client.kafka_stager import KafkaStager"
    )
    assert run(tmp_path, "agents", sys.executable, "-c", program).returncode == 0
