"""The wheel on every other Python that it says it runs on, where that Python is here (N2, N3)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from devtools.kafka import Brokers
from tests.kafka_client import read_all, wait_until
from tests.packaging.environments import Environment, build, readme_files
from tests.worker_harness import WorkerProcess

OTHERS = sorted({"3.11", "3.12", "3.13"} - {"{}.{}".format(*sys.version_info)})


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel."""
    return build(tmp_path_factory.mktemp("dist"))[0]


@pytest.mark.kafka
@pytest.mark.parametrize("version", OTHERS)
def test_the_example_of_the_readme(
    kafka: Brokers, namespace: str, wheel: Path, version: str, tmp_path: Path
) -> None:
    """A worker of the wheel delivers what the README's service stages, and ends cleanly on SIGTERM."""
    found = _executable(version)
    if not found:
        pytest.skip(f"no Python {version} here")
    python = Environment(tmp_path / "venv", found)
    python.install(f"stagepost[worker] @ file://{wheel}")
    for name, text in readme_files().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with WorkerProcess(
        kafka.bootstrap, namespace, catalog="events", faust=[python.faust], cwd=tmp_path
    ) as worker:
        env = {
            "STREAMING_BROKERS": kafka.bootstrap,
            "STREAMING_NAMESPACE": namespace,
            "STREAMING_CATALOG": "shop_events",
            "STREAMING_CLOUDEVENTS_SOURCE": "/shop",
            "STREAMING_OUTBOX_DIR": str(tmp_path / "outbox"),
        }
        done = python.run("service.py", cwd=tmp_path, env=env)
        assert done.returncode == 0, done.stderr
        wait_until(lambda: read_all(kafka.bootstrap, f"{namespace}.order.placed"), 60, "the delivered event")
        assert worker.wait_ready().terminate() == 0


def _executable(version: str) -> str:
    """The interpreter of a version, also where pyenv keeps it; empty where there is none."""
    try:
        done = subprocess.run(
            [f"python{version}", "-c", "import sys; print(sys.executable)"],
            env=os.environ | {"PYENV_VERSION": version},
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
