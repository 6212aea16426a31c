"""A real worker, ended in the middle of a redrive: nothing is lost, little is repeated, nothing is done again."""

from __future__ import annotations

import pytest

from devtools.kafka import Brokers
from pipeline.redrive.job import JobKind, JobState, Order, Progress, read_told
from tests.kafka_client import OutRecord, create_topic, produce, read_all, record_count, wait_until
from tests.worker.shop_records import CATALOG, staged, wait_committed
from tests.worker_harness import WorkerProcess

pytestmark = pytest.mark.kafka

COUNT = 3_000
RATE = 1_500.0
WINDOW, PART = 375, 75
"""A page at this rate, and what of it is sent at once."""
OFF = {"STREAMING_EVENT_POLICIES": "order.created.enabled=false"}


def _order(bootstrap: str, namespace: str, job: str) -> None:
    order = Order(
        job=job,
        kind=JobKind.REDRIVE,
        selection={"topic": f"{namespace}.order.created.dlq"},
        rate=RATE,
        by="ann",
        reason="",
        at=4_000_000_000.0,
    )
    key, value, _ = order.record()
    produce(bootstrap, f"{namespace}.jobs", [OutRecord(key, value)])


def _progress(bootstrap: str, namespace: str, job: str) -> Progress | None:
    told = [read_told(record.value) for record in read_all(bootstrap, f"{namespace}.jobs")]
    found = [one for one in told if isinstance(one, Progress) and one.job == job]
    return found[-1] if found else None


def _done(bootstrap: str, namespace: str, job: str) -> Progress | None:
    progress = _progress(bootstrap, namespace, job)
    return progress if progress and progress.state is JobState.DONE else None


@pytest.mark.parametrize(("way", "twice"), [("killed", WINDOW), ("stopped", PART)])
def test_ended_in_the_middle_of_a_redrive(kafka: Brokers, namespace: str, way: str, twice: int) -> None:
    """Q3, Q5: after kill -9, or SIGTERM, another worker takes the job over: each event is delivered, at most what was
    not recorded comes twice, each key in its order; a second run of the same selection does nothing."""
    bootstrap = kafka.bootstrap
    create_topic(bootstrap, f"{namespace}.staging", 3)
    records = [
        staged(f"e{number:05}", {"tenant": b"t%d" % (number % 30)}, value=b"%d" % number)
        for number in range(COUNT)
    ]
    places = produce(bootstrap, f"{namespace}.staging", records)
    with WorkerProcess(bootstrap, namespace, catalog=CATALOG, env=OFF) as off:
        off.wait_ready()
        wait_committed(off, bootstrap, namespace, places)
        assert record_count(bootstrap, f"{namespace}.dlq.index") == COUNT
        assert off.terminate() == 0

    worker = WorkerProcess(bootstrap, namespace, catalog=CATALOG)
    with worker:
        worker.wait_ready()
        _order(bootstrap, namespace, "one")
        wait_until(
            lambda: record_count(bootstrap, f"{namespace}.dlq.state") > 500, 60, "a part of the redrive"
        )
        if way == "killed":
            worker.kill()
        else:
            assert worker.terminate() == 0
        ended = record_count(bootstrap, f"{namespace}.dlq.state")
        assert ended < COUNT - WINDOW, "it was through before it was killed"
        worker.start().wait_ready()
        progress = wait_until(lambda: _done(bootstrap, namespace, "one"), 90, "the end of the job")
        assert progress is not None
        assert (progress.total, progress.done, progress.epoch) == (COUNT, COUNT, 2)

        back = read_all(bootstrap, f"{namespace}.staging")
        assert COUNT <= len(back) - COUNT <= COUNT + twice
        wait_committed(worker, bootstrap, namespace, [(r.partition, r.offset) for r in back])
        delivered = read_all(bootstrap, f"{namespace}.order.created")
        assert {record.header["ce_id"].decode() for record in delivered} == {
            f"e{number:05}" for number in range(COUNT)
        }
        for tenant in range(30):
            ids = [r.header["ce_id"] for r in delivered if r.key == b"t%d" % tenant]
            assert list(dict.fromkeys(ids)) == sorted(set(ids))
        assert not any(name.startswith("dlq-") for record in delivered[:50] for name, _ in record.headers)

        _order(bootstrap, namespace, "two")
        again = wait_until(lambda: _done(bootstrap, namespace, "two"), 60, "the end of the second job")
        assert again is not None
        assert (again.total, again.done) == (0, 0)
        assert record_count(bootstrap, f"{namespace}.staging") == len(back)
