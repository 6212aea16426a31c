"""`faust -A pipeline ledger verify` through the real command line, against a real Kafka (O2, T5, T6)."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from catalog import Catalog
from devtools.kafka import Brokers
from pipeline.kafka.connection import Connection
from pipeline.kafka.reader import Bounds, Place, Reader
from pipeline.ledger import verify as verify_module
from pipeline.ledger.findings import Findings
from pipeline.ledger.verify import PartitionStuck, verify
from tests.catalogs import fifty
from tests.cli.command_line import ROOT, Answer, run
from tests.fire import fire_load
from tests.kafka_client import OutRecord, create_topic, produce, wait_until
from tests.ledger.ledger_load import KINDS, Load
from tests.worker.shop_records import staged
from tests.worker_harness import WorkerProcess

pytestmark = pytest.mark.kafka

_PEAK_MB = 300


def _settings(kafka: Brokers, namespace: str) -> dict[str, str]:
    return {"BROKERS": kafka.bootstrap, "NAMESPACE": namespace, "CATALOG": "tests.catalogs.fifty"}


def _measured(folder: Path, settings: dict[str, str]) -> tuple[Answer, float, float]:
    """The answer, how many seconds it took, and the process's peak memory in MB."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STREAMING_")}
    environment |= {f"STREAMING_{name}": value for name, value in settings.items()}
    environment |= {"STREAMING_CLOUDEVENTS_SOURCE": "/tests/ledger", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "faust", "-A", "pipeline", "ledger", "verify", "--json"]
    start = time.monotonic()
    with (folder / "out").open("w+") as out, (folder / "err").open("w+") as err:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=err, cwd=ROOT)
        peak_mb = 0.0
        while process.poll() is None:
            peak_mb = _peak_mb(process.pid) or peak_mb
            time.sleep(0.02)
        took = time.monotonic() - start
        for file in (out, err):
            file.seek(0)
        answer = Answer(process.returncode, out.read(), err.read())
    return answer, took, peak_mb


def _peak_mb(pid: int) -> float | None:
    """What a process has taken at most since it began to run its program; what `wait4` says counts before, too."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return None


@pytest.mark.timeout(0)
@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_one_lost_event_among_all_is_found(
    kafka: Brokers, namespace: str, tmp_path: Path, count: int
) -> None:
    """T5, T6: of all events one is lost, one comes twice and one comes late: each is named, and nothing else is; in
    bounded memory."""
    load = Load(kafka.bootstrap, namespace, count)
    load.write()
    answer, took, peak_mb = _measured(tmp_path, _settings(kafka, namespace))
    print(f"{count:,} events: {took:.1f} s, {peak_mb:.0f} MB at most")
    assert answer.status == 1, answer.err
    document = answer.document
    assert document["ok"] is False
    assert [found["id"] for found in document["missing"]] == [f"event-{load.lost}"]
    assert [found["id"] for found in document["double"]] == [f"event-{load.double}"]
    assert len({end["offset"] for end in document["double"][0]["ends"]}) == 2
    (late,) = document["out_of_order"]
    assert late["id"] == f"event-{load.late}"
    assert late["came"]["topic"] == f"{namespace}.thing.e{load.late % KINDS}"
    assert late["after"]["key"] == late["key"]
    counts = document["counts"]
    assert (counts["staged"], counts["delivered"], counts["pending"]) == (count, count, 0)
    assert (counts["missing"], counts["double"], counts["out_of_order"]) == (1, 1, 1)
    assert "judging" in answer.err
    assert peak_mb < _PEAK_MB


@pytest.mark.timeout(0)
def test_beside_a_worker_at_work(kafka: Brokers, namespace: str) -> None:
    """O2, T6: while services stage and a worker delivers, nothing is missing, for what is not committed is pending; in
    the end everything is accounted for."""
    create_topic(kafka.bootstrap, f"{namespace}.staging", 6)
    load = fire_load.Load(kafka.bootstrap, namespace, 10_000)
    load.start()
    pending = []
    with WorkerProcess(kafka.bootstrap, namespace, catalog=fire_load.CATALOG) as worker:
        while load.delivered() < load.count:
            found = _verified(kafka, namespace)
            assert found.sound, found
            pending.append(found.counts.pending)
        # On a slow machine events were overdue, and parked.
        wait_until(lambda: _verified(kafka, namespace).counts.parked == 0, 120, "the parked events")
        assert worker.terminate() == 0
    load.wait_until_delivered(60)
    counts = _verified(kafka, namespace).counts
    assert (counts.staged, counts.delivered, counts.pending) == (load.count, load.count, 0)
    assert max(pending) > 0


def _verified(kafka: Brokers, namespace: str) -> Findings:
    connection = Connection((kafka.bootstrap,), "ledger-test")
    catalog = Catalog(fifty.DEFINITIONS, namespace=namespace)
    return asyncio.run(verify(connection, connection, catalog)).findings


def test_retention_and_words(kafka: Brokers, namespace: str) -> None:
    """O2: what staging has deleted is said by offsets and not judged; text names what `--json` names, up to `--limit`;
    exit status 0 once nothing is missing."""
    settings = _settings(kafka, namespace)
    empty = run("ledger", "verify", "--json", **settings)
    assert (empty.status, empty.document["staging"]) == (0, []), empty.err
    staging, target = f"{namespace}.staging", f"{namespace}.thing.e0"
    create_topic(kafka.bootstrap, staging, 1)
    records = [staged(f"n{number}", {"definition": b"thing.e0", "tenant": b"t"}) for number in range(5)]
    produce(kafka.bootstrap, staging, records)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for future in admin.delete_records([TopicPartition(staging, 0, 2)]).values():
        future.result(30)
    pending = run("ledger", "verify", **settings)
    assert (pending.status, pending.row("0")) == (0, ["0", "2", "2", "5"]), pending.err
    assert "pending: not committed by any worker yet" in pending.out

    create_topic(kafka.bootstrap, target, 1)
    load = Load(kafka.bootstrap, namespace, 0)
    load.commit(partitions=1)
    lost = run("ledger", "verify", "--limit", "2", **settings)
    assert lost.status == 1
    named = {name for name in ("n2", "n3", "n4") if name in lost.out}
    assert len(named) == 2
    for name in named:
        assert lost.row(name) == [name, f"0/{name[1:]}", "//shop/web", "thing.e0", "t"]
    assert [line.split()[-1] for line in lost.out.splitlines() if line.startswith("missing")] == ["3"]


def test_no_answer_is_told_plainly() -> None:
    """O2: where no broker answers nothing is known, and the exit status is 1."""
    answer = run("ledger", "verify")
    assert (answer.status, answer.out) == (1, "")
    assert "STREAMING_BROKERS" in answer.err
    assert "Traceback" not in answer.err


async def test_a_partition_that_gives_nothing_is_named(
    kafka: Brokers, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """O2: where what a partition promised does not come, as of a deleted topic, the ledger ends and says where."""
    topic = f"{namespace}.short"
    create_topic(kafka.bootstrap, topic, 1)
    produce(kafka.bootstrap, topic, [OutRecord(None, b"x")] * 3)
    monkeypatch.setattr(verify_module, "_PATIENCE_S", 0.5)
    bounds = {Place(topic, 0): Bounds(0, 5)}
    async with Reader(Connection((kafka.bootstrap,), "ledger-test")) as reader:
        told = verify_module._Told("", bounds, lambda _: None)
        with pytest.raises(PartitionStuck, match="from offset 3 on") as refused:
            async for _ in verify_module._read(reader, bounds, told):
                pass
    assert refused.value.end == 5
