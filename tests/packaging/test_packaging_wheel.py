"""What is built, and that it works where it is installed and nothing else is (N1, N2, N3)."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from devtools.kafka import Brokers
from tests.kafka_client import Record, read_all, wait_until
from tests.packaging.environments import ROOT, Environment, build, readme_files
from tests.worker_harness import WorkerProcess

PACKAGES = ("pipeline", "agents", "catalog")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the source archive."""
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def service(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel as a service installs it."""
    environment = Environment(tmp_path_factory.mktemp("service") / "venv")
    environment.install(str(built[0]))
    return environment


@pytest.fixture(scope="module")
def worker(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel as a worker installs it."""
    environment = Environment(tmp_path_factory.mktemp("worker") / "venv")
    environment.install(f"stagepost[worker] @ file://{built[0]}")
    return environment


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with what a worker needs, by its lock, and nothing of ours."""
    environment = Environment(tmp_path_factory.mktemp("libraries") / "venv")
    environment.install("--requirements", str(ROOT / "requirements" / "worker.lock"))
    return environment


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """An empty folder with nothing but the files of the README's example in it."""
    for name, text in readme_files().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The packages as a checkout has them, and no distribution of ours anywhere."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_the_wheel_holds_the_three_packages_and_nothing_else(built: tuple[Path, Path]) -> None:
    """The wheel is the three packages, typed, with their data; no tests, tools or demo (N1)."""
    names = set(zipfile.ZipFile(built[0]).namelist())
    assert {name.partition("/")[0] for name in names} - {"stagepost-0.1.0.dist-info"} == set(PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    sources = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if not name.startswith("stagepost-")} == sources
    assert "stagepost-0.1.0.dist-info/licenses/LICENSE" in names


def test_the_source_archive_can_be_tested(built: tuple[Path, Path]) -> None:
    """The source archive has the tests, the tools and every document that N1 names."""
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "LICENSE",
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        ".env.reference",
        "Procfile",
        "docker-compose.yml",
        "Makefile",
        "pyproject.toml",
        "requirements/dev.lock",
        "docs/CONTRACT.md",
        "tests/conftest.py",
        "demo/__main__.py",
        "devtools/kafka/pom.xml",
    } <= names


def test_a_service_installs_neither_faust_nor_aiohttp(service: Environment, tmp_path: Path) -> None:
    """The base install has what `stage()` needs and none of the worker's libraries (N3)."""
    code = (
        "import sys; from pipeline import stage, stage_blocking; import importlib.util as u;"
        "print([n for n in ('faust', 'mode', 'aiohttp', 'uvloop', 'prometheus_client') if u.find_spec(n)],"
        "sorted({'pydantic', 'aiokafka', 'rocksdict', 'agents'} & set(sys.modules)), stage.__module__)"
    )
    done = service.run("-c", code, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("[] [] pipeline.client.default\n", "")


def test_without_its_extra_the_worker_says_what_to_install(service: Environment, tmp_path: Path) -> None:
    """Starting a worker where only a service is installed names the extra, and fails (N2)."""
    done = service.run("-m", "pipeline", "worker", cwd=tmp_path)
    assert done.returncode != 0
    assert "pip install 'stagepost[worker]'" in done.stderr


@pytest.mark.parametrize("package", ["agents", "catalog"])
def test_a_foreign_package_in_the_way_is_named(worker: Environment, tmp_path: Path, package: str) -> None:
    """Where another `agents` or `catalog` hides ours, the start fails and says which, where, and what to do (N2)."""
    foreign = _foreign(package, tmp_path / "elsewhere")
    done = worker.run("-m", "pipeline", "worker", cwd=tmp_path, env={"PYTHONPATH": str(foreign.parent)})
    assert done.returncode != 0
    assert f"{package!r} found at {foreign / '__init__.py'} is not Stagepost's" in done.stderr
    assert "Uninstall or rename it" in done.stderr


@pytest.mark.parametrize("package", ["agents", "catalog"])
def test_a_foreign_package_installed_over_ours_is_named(
    built: tuple[Path, Path], tmp_path: Path, package: str
) -> None:
    """A distribution that overwrites our `agents` or `catalog` is named, and nothing of it is run (N2)."""
    zipfile.ZipFile(built[0]).extractall(tmp_path)
    (tmp_path / package / "__init__.py").write_text("raise SystemExit('run')\n")
    code = "from pipeline import neighbours as n; n.check_neighbour('agents'); n.check_neighbour('catalog')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert f"{package!r} found at {tmp_path / package / '__init__.py'} is not Stagepost's" in done.stderr


@pytest.mark.kafka
def test_the_example_of_the_readme(
    kafka: Brokers, namespace: str, service: Environment, worker: Environment, shop: Path
) -> None:
    """README's service, in the base install, reaches its topic through a worker from the wheel (N2, N3).

    Both catalogs of the README are used: TOML by the worker, Python by the service. The worker starts in a
    folder without our sources, joins its group, delivers, and ends cleanly on SIGTERM.
    """
    with WorkerProcess(
        kafka.bootstrap, namespace, catalog="events", faust=[worker.faust], cwd=shop
    ) as process:
        done = service.run("service.py", cwd=shop, env=_settings(kafka, namespace, "shop_events"))
        assert done.returncode == 0, done.stderr
        (record,) = _delivered(kafka, f"{namespace}.order.placed")
        assert process.wait_ready().terminate() == 0
    assert done.stdout.split()[0] == record.header["ce_id"].decode()
    assert (record.key, record.header["ce_source"]) == (b"acme", b"/shop")


@pytest.mark.kafka
def test_a_worker_from_a_plain_checkout(
    kafka: Brokers, namespace: str, libraries: Environment, shop: Path, checkout: Path
) -> None:
    """Nothing of ours is installed, and foreign `agents` and `catalog` are: the checkout's own are taken (N2)."""
    for package in ("agents", "catalog"):
        _foreign(package, libraries.site_packages)
    with WorkerProcess(
        kafka.bootstrap, namespace, catalog="events", faust=[libraries.faust], cwd=checkout
    ) as process:
        done = libraries.run("service.py", cwd=shop, env=_settings(kafka, namespace, "events"))
        assert done.returncode == 0, done.stderr
        assert len(_delivered(kafka, f"{namespace}.order.placed")) == 1
        assert process.wait_ready().terminate() == 0


def _settings(kafka: Brokers, namespace: str, catalog: str) -> dict[str, str]:
    return {
        "STREAMING_BROKERS": kafka.bootstrap,
        "STREAMING_NAMESPACE": namespace,
        "STREAMING_CATALOG": catalog,
        "STREAMING_CLOUDEVENTS_SOURCE": "/shop",
        "STREAMING_OUTBOX_DIR": "outbox",
    }


def _foreign(package: str, folder: Path) -> Path:
    """Put somebody else's package of that name into a folder."""
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").write_text("from somewhere import nothing\n")
    return folder / package


def _delivered(kafka: Brokers, topic: str) -> list[Record]:
    return wait_until(lambda: read_all(kafka.bootstrap, topic), 60, f"a record on {topic}")
