"""Readers and workers end also while no broker answers."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaError
from aiokafka.protocol.fetch import FetchRequest

from devtools.kafka import Cluster
from pipeline.kafka.client import Client
from pipeline.kafka.connection import Connection
from pipeline.kafka.reader import Place, Reader
from tests.kafka_client import create_topic
from tests.transport.batch_app import PARTITIONS, BatchApp, until

pytestmark = pytest.mark.kafka


class Fetches:
    """In which threads fetches were sent, and failed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: set[str] = set()
        self.failed: set[str] = set()
        send = Client.send

        async def noting(client: Client, node_id: int, request: Any, **options: Any) -> Any:
            thread = threading.current_thread().name
            if not isinstance(request, FetchRequest):
                return await send(client, node_id, request, **options)
            self.sent.add(thread)
            try:
                return await send(client, node_id, request, **options)
            except KafkaError:
                self.failed.add(thread)
                raise

        monkeypatch.setattr(Client, "send", noting)


async def test_a_reader_says_what_failed_and_a_worker_stops(
    own_kafka: Cluster, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C3, O1: an error amid reading stays what it is, and a worker's stop ends, while each fetch fails and is repeated
    after a pause. aiokafka cancels whoever closes then: who reads anew after errors would not, and Faust never stops.
    """
    create_topic(own_kafka.bootstrap, f"{namespace}.staging", PARTITIONS)
    fetches = Fetches(monkeypatch)
    worker = BatchApp(own_kafka.bootstrap, namespace, tmp_path)
    await worker.start()

    async def read() -> None:
        async with Reader(Connection((own_kafka.bootstrap,), "reader")) as reader:
            reader.read_from({Place(worker.own.staging, 0): 0})
            await until(
                lambda: len(fetches.sent) == 2
            )  # the worker's, in a thread of its own, and this one's
            own_kafka.nodes[0].kill()
            await until(lambda: fetches.failed == fetches.sent)
            raise LookupError

    try:
        with pytest.raises(LookupError):
            await read()
    finally:
        stopping = asyncio.create_task(worker.stop())
        await asyncio.wait({stopping}, timeout=30.0)
        assert stopping.done()
        await stopping
