"""The broker fixtures as a test suite meets them: skipped, failed, or run against given brokers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from catalog.names import namespace_problem
from tests.devtools.broker_processes import ROOT


@pytest.mark.parametrize(("ci", "outcome"), [("", "1 skipped"), ("true", "1 error")])
def test_without_a_broker_tests_are_skipped_but_fail_in_ci(ci: str, outcome: str, tmp_path: Path) -> None:
    """The fixtures skip with the reason where no broker can be had; under `CI` that is a failure."""
    (tmp_path / "test_it.py").write_text("def test_it(kafka): raise AssertionError('ran without a broker')")
    done = run_pytest(
        tmp_path, {"CI": ci, "PATH": str(tmp_path), "DOCKER_HOST": f"unix://{tmp_path}/no.sock"}
    )
    assert outcome in done.stdout
    assert "install a Java 17" in done.stdout
    assert "ran without a broker" not in done.stdout


def test_given_brokers_reach_the_tests(tmp_path: Path) -> None:
    """The shared fixture is the given address where there is one; each namespace is legal and new."""
    (tmp_path / "test_it.py").write_text(
        "seen = set()\n"
        "import pytest\n"
        "@pytest.mark.parametrize('turn', [1, 2])\n"
        "def test_it(kafka, namespace, turn):\n"
        "    assert kafka.bootstrap == 'elsewhere:9092'\n"
        "    assert namespace not in seen\n"
        "    seen.add(namespace)\n"
        "    print('namespace', namespace)\n"
    )
    done = run_pytest(tmp_path, {"STREAMING_TEST_BROKERS": "elsewhere:9092"})
    assert "2 passed" in done.stdout
    names = [line.split()[-1] for line in done.stdout.splitlines() if "namespace " in line]
    assert [namespace_problem(name) for name in names] == [None, None]


def run_pytest(folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the tests of a folder with the broker fixtures, in an environment of their own."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.broker_fixtures",
        "-p",
        "no:cacheprovider",
        "-rs",
        "-s",
    ]
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in {"JAVA_HOME", "STREAMING_TEST_BROKERS"}
    }
    return subprocess.run(
        [*command, "-c", os.devnull, f"--rootdir={folder}", str(folder)],
        cwd=ROOT,
        env={**kept, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
