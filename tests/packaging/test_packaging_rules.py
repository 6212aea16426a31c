"""That the project's own checks can fail, and that its files agree with each other and name no machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pipeline.settings import Settings
from tests.packaging.environments import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONTRACTS = [contract["name"] for contract in PROJECT["tool"]["importlinter"]["contracts"]]
BREACHES = {
    # what the rule's name ends with: where an import that breaks it is planted, and the import
    "stand in one order": ("pipeline/staging.py", "import pipeline.plan"),
    "Worker, agents, application stand in this order": ("agents/route.py", "import pipeline.worker"),
    "The catalog imports nothing of ours": ("catalog/names.py", "import pipeline.clock"),
    "Nothing that is installed imports what is not": ("pipeline/delivery.py", "import devtools.kafka"),
    "know Faust: a service does without it": ("pipeline/kafka/lane.py", "import faust"),
    "Deciding reaches no broker": ("pipeline/routes.py", "import aiokafka"),
    "Deciding neither waits nor looks at the clock": ("pipeline/dlq.py", "import time"),
    "Only clients of Kafka know aiokafka": ("pipeline/delivery.py", "import aiokafka"),
}
# Written so that this file does not hold what it looks for.
MACHINE = [
    "/wo" + "rk/",
    "/ro" + "ot/",
    r"/home/\w",
    "/opt/wh" + "eels",
    "/tmp" + "/",
    r"\.\./sh" + "ared",
    r"python" + "hosted",
    "--index" + "-url ",
    r"\bA" + r"I\b",
    r"\bLL" + r"M\b",
    "(?i:clau" + "de)",
    "(?i:anthro" + "pic)",
    "(?i:chat" + "gpt)",
    "(?i:co" + "pilot)",
]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of everything that the import rules look at."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in PROJECT["tool"]["importlinter"]["root_packages"]:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def broken_rules(folder: Path) -> set[str]:
    """The names of the import rules that do not hold in a folder."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"],
        cwd=folder,
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = " ".join(done.stdout.split())
    broken = {name for name in CONTRACTS if f"{name} BROKEN" in said}
    assert broken or "0 broken" in said, done.stdout + done.stderr
    assert (done.returncode != 0) is bool(broken)
    return broken


def test_every_import_rule_catches_its_breach(copy: Path) -> None:
    """Each rule of the import order fails when it is broken; without a breach all hold (N3)."""
    assert broken_rules(copy) == set()
    for file, line in BREACHES.values():
        with (copy / file).open("a", encoding="utf-8") as source:
            source.write(f"\n{line}\n")
    assert broken_rules(copy) == set(CONTRACTS)
    assert sorted(CONTRACTS) == sorted(
        name for name in CONTRACTS for end in BREACHES if name.endswith(end)
    ), "a rule without a planted breach"


def test_a_new_module_has_to_be_given_its_place(copy: Path) -> None:
    """A module of `pipeline` that the order does not name is an error, not a free passenger (N3)."""
    (copy / "pipeline" / "newcomer.py").touch()
    assert len(broken_rules(copy)) == 1


def test_the_lock_is_what_the_project_asks_for() -> None:
    """Each requirement of the project and its extras is locked in a version that it allows (N1)."""
    locked = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", _text("requirements/dev.lock"), re.MULTILINE))
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = [Requirement(text) for texts in (PROJECT["project"]["dependencies"], *extras) for text in texts]
    for requirement in wanted:
        if requirement.name != "stagepost":
            assert requirement.specifier.contains(locked[requirement.name]), requirement
    worker = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", _text("requirements/worker.lock"), re.MULTILINE))
    assert worker.items() <= locked.items()
    assert "pytest" not in worker
    assert locked.keys() >= {"faust-streaming", "aiokafka"}


def test_one_kafka_for_tests_and_compose() -> None:
    """The compose file runs the version of Kafka that the tests run on (N1)."""
    version = re.search(r"<kafka.version>([\d.]+)<", _text("devtools/kafka/pom.xml"))
    assert version is not None
    assert f"image: apache/kafka:{version[1]}\n" in _text("docker-compose.yml")


def test_the_worker_is_started_alike_everywhere() -> None:
    """Procfile and Dockerfile start the worker by the one command (N2)."""
    command = "faust -A pipeline -L uvloop worker -l info"
    assert _text("Procfile") == f"worker: {command}\n"
    assert f"CMD {str(command.split()).replace(chr(39), chr(34))}\n" in _text("Dockerfile")


def test_ci_runs_the_commands_of_the_readme() -> None:
    """`.ci/run` calls the README's three commands, which are targets of the Makefile (N1)."""
    steps = re.findall(r'^step "make ([\w-]+)"$', _text(".ci/run"), re.MULTILINE)
    assert steps == ["test", "demo", "bench-check"]
    for step in steps:
        assert re.search(rf"^make {step}( |$)", _text("README.md"), re.MULTILINE)
        assert re.search(rf"^{step}:", _text("Makefile"), re.MULTILINE)


def test_the_contract_is_whole_and_true_about_settings() -> None:
    """Every rule is in the document, and the settings that it lists are those there are (E)."""
    text = _text("docs/CONTRACT.md")
    counts = {"N": 4, "S": 11, "D": 6, "T": 6, "C": 3, "B": 2, "P": 6, "Q": 5, "O": 5}
    rules = [f"{letter}{number}" for letter, count in counts.items() for number in range(1, count + 1)]
    assert re.findall(r"^- \*\*([A-Z]\d+)\*\*", text, re.MULTILINE) == rules
    listed = _settings(text.partition("## E. Settings")[2])
    names = {name.upper() for name in Settings.model_fields}
    assert {name for name in names if not any(fnmatch(name, pattern) for pattern in listed)} == set()
    assert {pattern for pattern in listed if not any(fnmatch(name, pattern) for name in names)} == set()


def test_documents_name_files_that_exist() -> None:
    """Each file that README and ARCHITECTURE name is there, under its room of `pipeline` or the root."""
    for document in ("README.md", "ARCHITECTURE.md"):
        for name in re.findall(r"`([\w./-]+(?:\.py|\.md|\.yml|/))`", _text(document)):
            assert (ROOT / name).exists() or (ROOT / "pipeline" / name).exists(), f"{document}: {name}"
        for link in re.findall(r"\]\(([\w./-]+)\)", _text(document)):
            assert (ROOT / link).exists(), f"{document}: {link}"


def test_every_module_of_the_pipeline_is_in_the_architecture() -> None:
    """A newcomer finds each top-level module of `pipeline` in the one page that explains them."""
    text = _text("ARCHITECTURE.md")
    names = {path.stem for path in (ROOT / "pipeline").iterdir() if path.suffix == ".py" or path.is_dir()}
    missing = [
        name for name in sorted(names - {"__init__", "__pycache__"}) if not re.search(rf"\b{name}\b", text)
    ]
    assert missing == []


def test_no_file_names_a_machine() -> None:
    """No tracked file names a path of some machine, a package host, or how it was written."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: a source archive has no list of tracked files")
    pattern = re.compile("|".join(MACHINE))
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name in filter(None, listed.stdout.split("\0"))
        if (ROOT / name).is_file()
        for number, line in enumerate(_text(name).splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def _settings(text: str) -> list[str]:
    """The settings that a list names, without those that its remarks mention."""
    return sorted(re.findall(r"(?:^|^ |· )`([A-Z_*]+)`", text, re.MULTILINE))


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8", errors="replace")


def test_the_failure_model_names_tests_that_exist() -> None:
    """Each promise in docs/failure-model.md names the test that shows it, and there is such a test."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", _text("docs/failure-model.md"))
    assert len(named) >= 15
    for file, test in named:
        assert f"def {test}(" in _text(file), f"{file}::{test}"
