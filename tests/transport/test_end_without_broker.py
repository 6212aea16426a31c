"""Readers and workers end also while no broker answers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from devtools.kafka import Cluster
from pipeline.kafka.connection import Connection
from pipeline.kafka.reader import Place, Reader
from tests.kafka_client import create_topic
from tests.transport.batch_app import PARTITIONS, BatchApp, until

pytestmark = pytest.mark.kafka


async def test_a_reader_says_what_failed_and_a_worker_stops(
    own_kafka: Cluster, namespace: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """C3, O1: an error amid reading stays what it is, and a worker's stop ends, while each fetch fails and is repeated
    after a pause. aiokafka cancels whoever closes then: who reads anew after errors would not, and Faust never stops.
    """
    create_topic(own_kafka.bootstrap, f"{namespace}.staging", PARTITIONS)
    worker = BatchApp(own_kafka.bootstrap, namespace, tmp_path)
    await worker.start()

    def failing() -> set[str | None]:
        return {record.threadName for record in caplog.records if "Failed fetch" in record.getMessage()}

    async def read() -> None:
        async with Reader(Connection((own_kafka.bootstrap,), "reader")) as reader:
            reader.read_from({Place(worker.own.staging, 0): 0})
            assert await reader.fetch(1, 0.1) == {}
            own_kafka.nodes[0].kill()
            await until(lambda: len(failing()) == 2)  # the worker's, in a thread of its own, and this one's
            raise LookupError

    with pytest.raises(LookupError):
        await read()
    stopping = asyncio.create_task(worker.stop())
    await asyncio.wait({stopping}, timeout=30.0)
    assert stopping.done()
    await stopping
