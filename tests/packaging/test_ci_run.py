"""`.ci/run` itself: it passes where all is well, and fails where anything is not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.packaging.environments import ROOT

GOOD = ": >ran-$@"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout with `.ci/run`, and a README and Makefile that the tests fill."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    (tmp_path / "README.md").write_text("make test\nmake demo\nmake bench-check\n")
    (tmp_path / ".gitignore").write_text("ran-*\n")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    return tmp_path


def run_ci(
    checkout: Path, *, test: str = GOOD, demo: str = GOOD, bench: str = GOOD
) -> subprocess.CompletedProcess[str]:
    """Run `.ci/run` with these recipes for the three targets."""
    (checkout / "Makefile").write_text(f"test:\n\t@{test}\ndemo:\n\t@{demo}\nbench-check:\n\t@{bench}\n")
    git = ["git", "-C", str(checkout), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "all"], check=True)
    return subprocess.run(
        [str(checkout / ".ci" / "run")], cwd="/", capture_output=True, text=True, timeout=60, check=False
    )


def test_it_runs_all_commands(checkout: Path) -> None:
    """With all commands well it passes, from any folder, and has really run them; a missing broker fails there."""
    done = run_ci(checkout, test='test "$$CI" = true && : >ran-$@')
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in checkout.glob("ran-*")} == {"ran-test", "ran-demo", "ran-bench-check"}


@pytest.mark.parametrize("recipes", [{"test": "exit 3"}, {"demo": "exit 3"}, {"bench": "exit 3"}])
def test_a_failing_command_fails_it(checkout: Path, recipes: dict[str, str]) -> None:
    """A command that fails is a failure."""
    assert run_ci(checkout, **recipes).returncode != 0


def test_a_command_that_the_readme_does_not_name_fails_it(checkout: Path) -> None:
    """The commands are the README's own."""
    (checkout / "README.md").write_text("make demo\n")
    done = run_ci(checkout)
    assert done.returncode != 0
    assert "README.md does not say: make test" in done.stdout


def test_a_process_left_running_fails_it_and_is_ended(checkout: Path) -> None:
    """What a command leaves running, in whatever session, is named, ended, and a failure."""
    done = run_ci(checkout, test="setsid sleep 1000.25 >/dev/null 2>&1 & echo $$! >ran-pid")
    assert done.returncode == 1
    assert "left running" in done.stdout
    assert "sleep 1000.25" in done.stdout
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "sleep 1000.25" not in listed.splitlines()


@pytest.mark.parametrize("recipe", ["echo more >>README.md", "touch left-over"])
def test_a_changed_checkout_fails_it(checkout: Path, recipe: str) -> None:
    """A tracked file changed, or a file left that git does not ignore, is a failure."""
    done = run_ci(checkout, demo=recipe)
    assert done.returncode == 1
    assert "changed or left behind" in done.stdout
