"""A service of several preloaded processes, killed under load while its broker fails: no event it took is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from devtools.kafka import Cluster
from pipeline.outbox.store import RocksStore
from tests.client import client_events
from tests.kafka_client import read_all, wait_until
from tests.service_harness import Callers, GunicornService

pytestmark = pytest.mark.kafka

GIB = 1 << 30
SETTINGS = {
    "STREAMING_STAGE_TIMEOUT_S": "1",
    "STREAMING_CB_TIMEOUT_S": "1",
    "STREAMING_TOPIC_PARTITIONS": "3",
}


def staged_ids(bootstrap: str, namespace: str) -> set[str]:
    """The ids on the staging topic."""
    return {record.header["stage-id"].decode() for record in read_all(bootstrap, f"{namespace}.staging")}


def test_two_of_four_preloaded_processes_killed_while_the_broker_fails(
    own_kafka: Cluster, namespace: str, tmp_path: Path
) -> None:
    """S2, S9: whatever a service of four preloaded processes called durable arrives, though the broker is killed
    and comes back, and two of the processes are killed under load in between; afterwards every slot is empty."""
    service = GunicornService(
        own_kafka.bootstrap,
        namespace,
        tmp_path,
        catalog=client_events.NAME,
        application="tests.service.preloaded_service:application",
        env=SETTINGS,
    )
    with service:
        with Callers(service, "thing.happened", 12) as callers:
            callers.wait_for("topic", 300)
            own_kafka.nodes[0].kill()
            callers.wait_for("outbox", 300)
            killed: list[int] = []
            unanswered = callers.unanswered
            while callers.unanswered == unanswered:  # until a call was under way in one that was killed
                before = set(service.workers)
                killed += service.kill_workers(2)
                wait_until(lambda: len(set(service.workers) - before) == 2, 20, "two new processes")  # noqa: B023
                callers.wait_for("outbox", 300)
            own_kafka.nodes[0].start()
            own_kafka.wait_ready()
            callers.wait_for("topic", 300)
        wanted = {*callers.ids, "master"}
        wait_until(
            lambda: wanted <= staged_ids(own_kafka.bootstrap, namespace), 60, "every event that was durable"
        )
        assert not set(killed) & set(service.workers)
        assert service.terminate() == 0
        for sign in ("SIGABRT", "SIGSEGV", "Traceback"):
            assert sign not in service.log_text()
    slots = sorted(service.outbox.iterdir())
    assert len(slots) >= 5  # the master's and one of each process
    for slot in slots:
        store = RocksStore(slot, GIB)
        assert store.rows == 0, slot
        store.close()
