"""What a service imports, what that costs, and what the worker needs on top (N2, N3)."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import pipeline
from pipeline import testing

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("faust", "mode", "aiohttp", "agents", "pydantic", "aiokafka", "rocksdict", "prometheus_client")
LOADED = f"; import sys; print(*sorted(set(sys.modules) & set({HEAVY})))"
ENV = {
    "STREAMING_BROKERS": "127.0.0.1:1",
    "STREAMING_CATALOG": "catalog.examples.flights",
    "STREAMING_CLOUDEVENTS_SOURCE": "//t",
}


def run(program: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "program",
    [
        "from pipeline import stage, stage_blocking, NO_DATA, Staged",
        "from pipeline import health, use_stager, Health",
        "import pipeline.testing.plugin",
        "import pipeline.testing",
        "import pipeline; dir(pipeline)",
    ],
)
def test_importing_costs_nothing(program: str) -> None:
    """What a service imports loads none of the packages that cost, and neither does the pytest plugin (N3)."""
    done = run(program + LOADED)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_a_service_never_needs_the_worker(tmp_path: Path) -> None:
    """Staging for real loads aiokafka, pydantic and rocksdict, but nothing of the worker's (N3)."""
    program = "import asyncio, pipeline; asyncio.run(pipeline.health())"
    done = run(
        program + LOADED,
        **ENV,
        STREAMING_STAGE_TIMEOUT_S="0.1",
        STREAMING_OUTBOX_DIR=str(tmp_path / "outbox"),
    )
    assert done.stdout.split() == ["aiokafka", "pydantic", "rocksdict"], done.stderr


def test_public_names() -> None:
    """`__all__` is sorted (constants, classes, functions), every name is there, and no other by accident."""
    names = [*pipeline.__all__]
    assert names == sorted(names, key=lambda name: (not name.isupper(), name[0].islower(), name))
    for name in names:
        if name != "app":
            assert getattr(pipeline, name) is not None
    assert set(names) <= set(dir(pipeline))
    with pytest.raises(AttributeError, match="no attribute 'stagee'"):
        pipeline.stagee  # type: ignore[attr-defined]  # noqa: B018
    assert [*testing.__all__] == sorted(testing.__all__)
    for name in testing.__all__:
        assert getattr(testing, name).__name__ == name


def test_no_module_is_called_as_what_faust_looks_up() -> None:
    """`-A pipeline` takes the attribute `app`, and a service the attribute `stage`: no module may shadow them."""
    assert not [
        path
        for name in ("app", "stage")
        for path in (ROOT / "pipeline").glob(f"{name}*")
        if path.stem == name
    ]


def test_the_app_is_made_when_it_is_asked_for() -> None:
    """`pipeline.app` is the worker's Faust app, the same each time; before, Faust is not loaded (N2, N3)."""
    program = (
        "import sys, pipeline; assert 'faust' not in sys.modules; "
        "import faust; assert isinstance(pipeline.app, faust.App); assert pipeline.app is pipeline.app"
    )
    done = run(program, **ENV)
    assert done.returncode == 0, done.stderr


def test_a_missing_extra_is_named() -> None:
    """Where the worker's dependencies are not installed, the start says what to install (N2)."""
    done = run("import sys; sys.modules['faust'] = None; import pipeline; pipeline.app", **ENV)
    assert done.returncode != 0
    assert "pip install 'stagepost[worker]'" in done.stderr


def test_settings_that_are_wrong_are_named() -> None:
    """A service without settings learns which variables it needs at its first call (E)."""
    done = run("import pipeline; pipeline.stage_blocking('a.b', None)", **dict.fromkeys(ENV, ""))
    assert "SettingsError" in done.stderr
    assert all(name in done.stderr for name in ENV)


def test_a_catalog_that_exits_does_not_hang(tmp_path: Path) -> None:
    """A catalog module that ends the program at its import is an error, in a thread and in a task."""
    (tmp_path / "exits.py").write_text("raise SystemExit(3)")
    env = {**ENV, "STREAMING_CATALOG": "exits", "PYTHONPATH": str(tmp_path)}
    for call in ("pipeline.stage_blocking('a.b', None)", "asyncio.run(pipeline.stage('a.b', None))"):
        done = run(f"import asyncio, pipeline; {call}", **env)
        assert "the catalog ends the program when it is imported" in done.stderr


def test_the_plugin_is_the_one_that_is_declared() -> None:
    """The entry point of pytest names the plugin that is there (S8)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"stagepost": "pipeline.testing.plugin"}
    assert (ROOT / "pipeline/testing/plugin.py").exists()


def test_every_public_signature_is_the_same() -> None:
    """`stage` and `stage_blocking` take the same arguments everywhere: default, protocol, each stager (S1, S8)."""
    found = set()
    for name in ("default", "stager", "kafka_stager"):
        tree = ast.parse((ROOT / f"pipeline/client/{name}.py").read_text())
        found |= _signatures(tree)
    found |= _signatures(ast.parse((ROOT / "pipeline/testing/memory.py").read_text()))
    assert len(found) == 1, found
    (arguments,) = found
    assert arguments == "key payload | tenant subject id time policy headers"


def _signatures(tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in (
            "stage",
            "stage_blocking",
        ):
            if node.args.kwarg is not None:
                continue  # the one that ignores all but the id
            plain = [item.arg for item in node.args.args if item.arg != "self"]
            found.add(" ".join([*plain, "|", *(item.arg for item in node.args.kwonlyargs)]))
    return found
