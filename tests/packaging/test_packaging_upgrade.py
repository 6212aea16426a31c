"""A rolling upgrade: workers of an older version and of this one in one group, and back, while events flow (N2, T1).

The older version is that of the newest tag before this commit; where there is none, a commit from before the first.
"""

from __future__ import annotations

import asyncio
import subprocess
import tarfile
import threading
from collections import defaultdict
from pathlib import Path
from typing import Self

import pytest

from devtools.kafka import Brokers
from pipeline import Settings, Stager
from tests.kafka_client import partition_count, read_all, wait_until
from tests.packaging.environments import ROOT, Environment, build, readme_files
from tests.web.asking import TOKENS, Site
from tests.worker_harness import WorkerProcess

BEFORE_THE_FIRST_TAG = "2519252"
KEYS = 12
PARTITIONS = 4


def older_version() -> str:
    """The revision to upgrade from. Skips where this is no checkout with its history."""
    try:
        tags = _git("tag", "--merged", "HEAD", "--no-contains", "HEAD", "--sort=-v:refname", "v*").split()
        return _git("rev-parse", f"{(tags or [BEFORE_THE_FIRST_TAG])[0]}^{{commit}}").strip()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no older version here: {error.stderr.strip()}")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


class Flow:
    """A service that stages all the time, numbered events of each key, until it is stopped."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.staged = [0] * KEYS

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def stop(self) -> None:
        """Stage nothing more; at return every call has ended. Idempotent."""
        self._over.set()
        self._thread.join()

    async def _run(self) -> None:
        async with Stager(self._settings) as stager, asyncio.TaskGroup() as callers:
            for key in range(KEYS):
                callers.create_task(self._call(stager, key))

    async def _call(self, stager: Stager, key: int) -> None:
        while not self._over.is_set():
            payload = {"order": self.staged[key], "total": str(key)}
            await stager.stage("order.placed", payload, tenant=f"tenant-{key}")
            self.staged[key] += 1
            await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Environment, Environment]:
    """Environments of the older version's wheel and of this one's."""
    revision, folder = older_version(), tmp_path_factory.mktemp("versions")
    (folder / "source").mkdir()
    _git("archive", "--output", str(folder / "source.tar"), revision)
    with tarfile.open(folder / "source.tar") as tar:
        tar.extractall(folder / "source", filter="data")
    made = []
    for name, source in (("older", folder / "source"), ("newer", ROOT)):
        environment = Environment(folder / name)
        environment.install(f"stagepost[worker] @ file://{build(folder / f'{name}-dist', source)[0]}")
        made.append(environment)
    return made[0], made[1]


@pytest.mark.kafka
@pytest.mark.long
def test_a_rolling_upgrade(
    kafka: Brokers, namespace: str, versions: tuple[Environment, Environment], tmp_path: Path
) -> None:
    """N2, T1, T5: upgraded one by one, back, and killed in between, no event is lost, and each key stays in order;
    what one version is told or has parked, the other knows and drains."""
    for name, text in readme_files().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    target = f"{namespace}.order.placed"
    older, newer = (
        WorkerProcess(
            kafka.bootstrap,
            namespace,
            catalog="events",
            faust=[version.faust],
            cwd=tmp_path,
            env={"STREAMING_ADMIN_TOKENS": TOKENS, "STREAMING_TOPIC_PARTITIONS": str(PARTITIONS)},
        )
        for version in versions
    )
    settings = Settings.from_env(
        {
            "STREAMING_BROKERS": kafka.bootstrap,
            "STREAMING_NAMESPACE": namespace,
            "STREAMING_CATALOG": str(tmp_path / "events"),
            "STREAMING_CLOUDEVENTS_SOURCE": "/shop",
            "STREAMING_OUTBOX_DIR": str(tmp_path / "outbox"),
            "STREAMING_TOPIC_PARTITIONS": str(PARTITIONS),
        }
    )

    with older, Flow(settings) as flow:
        older.wait_ready()
        _more_delivered(kafka, target)
        with newer:
            newer.wait_ready()  # both
            _shared(older, newer)
            assert Site(older).post(f"/breakers/{target}/pause", {"reason": "upgrade"}).status == 200
            parked = f"{namespace}.parked"
            wait_until(lambda: len(read_all(kafka.bootstrap, parked)) > 100, 60, "parked by both")
            assert older.terminate() == 0  # the newer has to drain what the older has parked
            assert Site(newer).post(f"/breakers/{target}/resume").status == 200
            wait_until(lambda: not read_all(kafka.bootstrap, parked), 60, "drained by the newer")
            _more_delivered(kafka, target)
            older.start().wait_ready()  # and back: both
            _shared(newer, older)
            newer.kill()
            newer.start().wait_ready()
            _more_delivered(kafka, target)
            assert newer.terminate() == 0  # the older alone
            _more_delivered(kafka, target)
            flow.stop()
            wait_until(lambda: _delivered(kafka, target) == _all(flow), 90, f"all\n{older.log_tail()}")
        assert older.terminate() == 0
    assert _delivered(kafka, target) == _all(flow)
    assert min(flow.staged) > 100


def _all(flow: Flow) -> dict[str, list[int]]:
    return {f"tenant-{key}": [*range(count)] for key, count in enumerate(flow.staged)}


def _delivered(kafka: Brokers, target: str) -> dict[str, list[int]]:
    """The numbers of each key's events, as they were delivered first."""
    first: dict[bytes, tuple[str, int]] = {}
    for record in read_all(kafka.bootstrap, target):
        header, value = record.header, record.value or b""
        number = int(value.partition(b'"order":')[2].partition(b",")[0])
        first.setdefault(header["ce_id"], ((record.key or b"").decode(), number))
    found: defaultdict[str, list[int]] = defaultdict(list)
    for key, number in first.values():
        found[key].append(number)
    return found


def _more_delivered(kafka: Brokers, target: str) -> None:
    """Wait until what is staged now arrives."""
    there = len(read_all(kafka.bootstrap, target)) if partition_count(kafka.bootstrap, target) else 0
    wait_until(lambda: len(read_all(kafka.bootstrap, target)) > there + 200, 60, "more events")


def _shared(*workers: WorkerProcess) -> None:
    """Wait until each of them has partitions of staging."""
    for worker in workers:
        wait_until(
            lambda worker=worker: bool(Site(worker).get("/").data["partitions"]),  # type: ignore[misc]
            60,
            "partitions of each",
        )
