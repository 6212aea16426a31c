"""What a worker's consumer knows of topics does not get old."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]

from devtools.kafka import Brokers
from pipeline.transport import thread
from tests.kafka_client import create_topic
from tests.transport.batch_app import BatchApp, running, until

pytestmark = pytest.mark.kafka


async def test_what_is_known_of_topics_is_asked_for_again(
    kafka: Brokers, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T6: a member that led a rebalance while it knew of no partitions, or too few, learns of them within 15 s, and
    they are given to somebody. Faust and aiokafka look again after five minutes."""
    assert thread.METADATA_AGE_S <= 15
    monkeypatch.setattr(thread, "METADATA_AGE_S", 0.5)
    create_topic(kafka.bootstrap, f"{namespace}.staging", 1)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    async with running(BatchApp(kafka.bootstrap, namespace, tmp_path)) as worker:
        assert worker.assigned == {0}
        for created in admin.create_partitions([NewPartitions(f"{namespace}.staging", 2)]).values():
            await asyncio.to_thread(created.result, 30)
        await until(lambda: worker.assigned == {0, 1})
