"""Workers that join, stop and are killed under load: nothing is missing, and order holds (T5, T6)."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from devtools.kafka import Brokers
from tests.fire.fire_load import CATALOG, Load
from tests.kafka_client import create_topic, wait_until
from tests.worker_harness import WorkerProcess

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(0)]

# The least session a broker allows: a killed worker's partitions are given away after that. Nothing is parked: a busy
# machine may take seconds for the first write to 300 partitions, and what is parked at the end is on no target.
_QUICK = {"STAGEPOST_FAUST_BROKER_SESSION_TIMEOUT": "6", "STREAMING_TARGET_SOFT_TIMEOUT_S": "60"}


def load_of(kafka: Brokers, namespace: str, count: int) -> Load:
    """A load for six staging partitions, being written from now on."""
    create_topic(kafka.bootstrap, f"{namespace}.staging", partitions=6)
    load = Load(kafka.bootstrap, namespace, count)
    load.start()
    return load


def worker_of(kafka: Brokers, namespace: str) -> WorkerProcess:
    """A worker of the load's catalog."""
    return WorkerProcess(kafka.bootstrap, namespace, catalog=CATALOG, env=_QUICK)


@pytest.mark.parametrize("count", [30_000, pytest.param(200_000, marks=pytest.mark.long)])
def test_a_second_worker_joins_and_the_first_stops(kafka: Brokers, namespace: str, count: int) -> None:
    """T5: with 50 definitions and 1,000 tenants, a worker joins half-way and the first is stopped: none missing,
    each key in order, and nothing twice, for both moves are clean."""
    load = load_of(kafka, namespace, count)
    with worker_of(kafka, namespace) as first:
        first.wait_ready()
        wait_until(lambda: load.delivered() > count // 3, 120, "a third of the load")
        with worker_of(kafka, namespace) as second:
            second.wait_ready()
            assert first.terminate() == 0
            load.wait_until_delivered(300)
            assert second.terminate() == 0
    assert load.verdict() == (0, 0, [])


@pytest.mark.parametrize(
    ("count", "rounds"), [(30_000, 3), pytest.param(400_000, 20, marks=pytest.mark.long)]
)
def test_clean_joins_and_stops(kafka: Brokers, namespace: str, count: int, rounds: int) -> None:
    """T5: worker after worker joins and the one before it stops, under load: nothing missing, nothing double."""
    load = load_of(kafka, namespace, count)
    with ExitStack() as workers:
        worker = workers.enter_context(worker_of(kafka, namespace)).wait_ready()
        for _ in range(rounds):
            following = workers.enter_context(worker_of(kafka, namespace)).wait_ready()
            assert worker.terminate() == 0
            worker = following
        load.wait_until_delivered(300)
        assert worker.terminate() == 0
    assert load.verdict() == (0, 0, [])


@pytest.mark.parametrize(("count", "kills"), [(30_000, 2), pytest.param(200_000, 10, marks=pytest.mark.long)])
def test_killed_at_any_moment(kafka: Brokers, namespace: str, count: int, kills: int) -> None:
    """T5, T6: kill -9 of the worker under load, again and again: nothing is missing, first deliveries are in order;
    what was under way comes twice, with its id."""
    load = load_of(kafka, namespace, count)
    for _ in range(kills):
        with worker_of(kafka, namespace) as worker:
            worker.wait_ready()
            load.wait_for_a_commit(60)
            worker.kill()
    with worker_of(kafka, namespace) as worker:
        worker.wait_ready()  # a fast machine has nothing left for it: it would be told to end before it can hear that
        load.wait_until_delivered(300)
        assert worker.terminate() == 0
    missing, _, out_of_order = load.verdict()
    assert (missing, out_of_order) == (0, [])
