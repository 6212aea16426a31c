"""Staging has more partitions than the parked topics: what cannot be parked waits, and it is said for what."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]

from catalog import OwnTopics
from devtools.kafka import Brokers
from tests.kafka_client import committed, wait_until
from tests.parking.guarded import WELL
from tests.parking.parked_shop import ParkedShop, readiness
from tests.process_harness import ROOT
from tests.worker.shop_records import staged

pytestmark = pytest.mark.kafka

_LOOKS_OFTEN = """
from pipeline.kafka.connection import Connection

client = Connection.client
Connection.client = lambda self, **options: client(self, **{**options, "metadata_age_s": 0.5})
"""


def extend(bootstrap: str, counts: Mapping[str, int]) -> None:
    """Give topics more partitions."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for created in admin.create_partitions([NewPartitions(*item) for item in counts.items()]).values():
        created.result(30)


def test_partitions_added_to_staging_wait_by_name(kafka: Brokers, namespace: str, tmp_path: Path) -> None:
    """O1, P1: a partition that staging was given while a worker runs waits until both parked topics have as many, by a
    cause that names the one that has too few and who says what to do; then it goes on by itself. A worker that is
    started meanwhile is refused with the same words."""
    shop, own = ParkedShop(kafka.bootstrap, kafka.bootstrap, namespace), OwnTopics(namespace)
    (tmp_path / "sitecustomize.py").write_text(_LOOKS_OFTEN)
    with shop.worker({"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}) as worker:
        worker.wait_ready()
        extend(kafka.bootstrap, {own.staging: 4})
        shop.produce([staged("new", {"definition": WELL.encode()}, partition=3)])
        for short in (own.parked, own.parked_cursors):
            cause = f"{short} has 3 partitions, fewer than staging: `faust -A pipeline topics check`"
            wait_until(lambda cause=cause: cause in readiness(worker), 30, cause)  # type: ignore[misc]
            if short == own.parked:
                with shop.worker() as other:
                    assert other.wait(60) != 0
                    assert f"{short}: has 3 partitions, staging has 4: `faust -A pipeline topics check`" in (
                        other.log_text()
                    )
            assert shop.on(WELL) == []
            extend(kafka.bootstrap, {short: 4})
        wait_until(lambda: len(shop.on(WELL)) == 1, 30, "the event")
        wait_until(
            lambda: committed(kafka.bootstrap, f"{namespace}-pipeline", own.staging).get(3) == 1,
            30,
            "its commit",
        )
        assert "topics check" not in readiness(worker)
        assert worker.terminate() == 0
