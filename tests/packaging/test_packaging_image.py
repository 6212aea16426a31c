"""The container image without an engine: its file is linted, and its own commands are run as it would run them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.kafka import Brokers
from tests.kafka_client import wait_until
from tests.packaging.environments import ROOT, Environment, build, uv, without_settings

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
FINAL = DOCKERFILE.rpartition("\nFROM ")[2]
USER = 10001
_READ_ONLY = (
    'mount --make-rprivate / && mount --bind "$1" "$1" && mount -o bind,remount,ro / && shift && exec "$@"'
)


def _exec_form(instruction: str) -> list[str]:
    """The arguments of an instruction of the last stage, which has to be in exec form."""
    found = re.search(rf"^\s*{instruction} (\[.*\])$", FINAL, re.MULTILINE)
    assert found is not None
    return [str(argument) for argument in json.loads(found[1])]


@pytest.fixture(scope="module")
def venv() -> Iterator[Environment]:
    """An environment made by the steps of the first stage, in a folder that another user can read."""
    folder = Path(tempfile.mkdtemp(prefix="stagepost-image-"))
    folder.chmod(0o755)
    environment = Environment(folder / "venv")
    uv("pip", "install", "--python", environment.python, "--require-hashes", "-r", "requirements/worker.lock")
    uv("pip", "install", "--python", environment.python, "--no-deps", str(build(folder / "dist")[0]))
    yield environment
    shutil.rmtree(folder)


def test_the_dockerfile_is_sound() -> None:
    """hadolint finds nothing in it, and it copies only what .dockerignore lets through."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("hadolint")), str(ROOT / "Dockerfile")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for sources in re.findall(r"^COPY ((?!--)[^\n]+) \S+$", DOCKERFILE, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists()
            assert source.split("/")[0] in allowed


def test_the_image_runs_as_nobody_and_ends_on_a_signal() -> None:
    """The last stage has no compiler and no pip of ours, a user by number, a health check, and no shell in between."""
    assert f"\nUSER {USER}:{USER}\n" in FINAL
    assert "pip install" not in FINAL
    assert "STOPSIGNAL SIGTERM" in FINAL
    assert _exec_form("CMD")[0] == "python"  # of the health check, the first
    assert json.loads(FINAL.rstrip().splitlines()[-1].removeprefix("CMD "))[0] == "faust"


@pytest.mark.kafka
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user and make its root read-only")
def test_the_commands_of_the_image(kafka: Brokers, namespace: str, venv: Environment) -> None:
    """The image's command, as its user, on a read-only root, in an empty folder: healthy, and gone on SIGTERM (N2)."""
    data = Path(tempfile.mkdtemp(prefix="data-", dir=venv.folder.parent))
    os.chown(data, USER, USER)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = without_settings() | {
        "PATH": f"{venv.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/nonexistent",
        "TMPDIR": str(data),
        "STREAMING_BROKERS": kafka.bootstrap,
        "STREAMING_NAMESPACE": namespace,
        "STREAMING_CATALOG": "catalog.examples.flights",
        "STREAMING_CLOUDEVENTS_SOURCE": "/worker",
        "STREAMING_DATA_DIR": str(data),
        "STREAMING_WEB_PORT": str(port),
    }
    command = json.loads(FINAL.rstrip().splitlines()[-1].removeprefix("CMD "))
    # The interpreter may lie where only root may read: this capability lets the user read, never write.
    become = [
        *("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs"),
        *("--bounding-set=-all,+dac_read_search", "--inh-caps=-all,+dac_read_search"),
        "--ambient-caps=-all,+dac_read_search",
    ]
    log = venv.folder.parent / "worker.log"
    with (
        log.open("wb") as out,
        subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", _READ_ONLY, "sh", str(data), *become, *command],
            cwd=data,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        ) as worker,
    ):
        try:
            wait_until(
                lambda: worker.poll() is not None or b"Worker ready" in log.read_bytes(), 60, "a ready worker"
            )
            health = _exec_form("CMD")
            done = subprocess.run(health, env=env, capture_output=True, text=True, timeout=20, check=False)
            assert done.returncode == 0, done.stderr + log.read_text()
            status = Path(f"/proc/{worker.pid}/status").read_text()
            assert re.search(rf"^Uid:\s+{USER}\s+{USER}", status, re.MULTILINE)
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(30) == 0, log.read_text()
        finally:
            worker.kill()
    assert subprocess.run(health, env=env, capture_output=True, timeout=20, check=False).returncode != 0
    assert any(data.iterdir()), "nothing was written where tables and indexes belong"
