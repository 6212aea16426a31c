"""Dead letters on a real Kafka, and the redrive of a worker beside them, without the rest of the worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from catalog import OwnTopics
from pipeline.clock import SYSTEM_CLOCK
from pipeline.dlq import Failure, dead_letter_headers
from pipeline.errors import ErrorClass
from pipeline.ids import uuid7
from pipeline.kafka.cluster import Cluster
from pipeline.kafka.connection import Connection
from pipeline.kafka.producer import ProducerOptions
from pipeline.kafka.topics import TopicSpecs
from pipeline.record import RawHeader
from pipeline.redrive.job import Job, JobKind, TargetOrder
from pipeline.redrive.selection import Selection
from pipeline.redrive.service import Redrive
from pipeline.settings import Settings
from tests.kafka_client import OutRecord, Record, create_topic, produce, read_all

FAILURE = Failure(ErrorClass.VALIDATION, "id is empty")


def staged_headers(event_id: str, tenant: str = "acme") -> list[tuple[str, bytes]]:
    """The headers of a sound staging record."""
    fields = {
        "version": "1",
        "definition": "order.created",
        "id": event_id,
        "time": "2026-01-02T03:04:05Z",
        "source": "//shop/web",
        "tenant": tenant,
    }
    return [(f"stage-{name}", value.encode()) for name, value in fields.items()]


def letter(
    event_id: str,
    *,
    tenant: str = "acme",
    more: Sequence[tuple[str, bytes]] = (),
    framed: Sequence[RawHeader] = (),
    value: bytes | None = b"{}",
    source: tuple[int, int] = (0, 0),
    failure: Failure = FAILURE,
    partition: int = -1,
    last: Sequence[tuple[str, bytes]] = (),
) -> OutRecord:
    """A dead letter of `order.created`, as a worker writes it."""
    headers = dead_letter_headers(
        [*staged_headers(event_id, tenant), *more],
        framed,
        failure,
        source_topic="order.created",
        staging_partition=source[0],
        staging_offset=source[1],
        retry_count=0,
        failed_at=1_767_323_045.0,
        producer_id="w/1",
        definition="order.created",
        schema_version="1.0.0",
    )
    written = [(name, content or b"") for name, content in headers]
    return OutRecord(tenant.encode(), value, [*written, *last], partition)


class Bench:
    """A namespace with its topics, and the redrive of one worker."""

    def __init__(self, bootstrap: str, namespace: str, redrive: Redrive, orders: list[TargetOrder]) -> None:
        self.bootstrap = bootstrap
        self.namespace = namespace
        self.redrive = redrive
        self.orders = orders
        self.dlq = f"{namespace}.order.created.dlq"

    def read(self, name: str) -> list[Record]:
        """What is on a topic of the namespace."""
        return read_all(self.bootstrap, f"{self.namespace}.{name}")

    def audit(self, action: str) -> list[dict[str, object]]:
        """The audit records of an action."""
        entries = [json.loads(record.value or b"") for record in self.read("audit")]
        return [entry for entry in entries if entry["action"] == action]

    async def put(self, records: Iterable[OutRecord], topic: str | None = None) -> list[tuple[int, int]]:
        """Write dead letters and let the index get to know them."""
        topic = topic or self.dlq
        places = produce(self.bootstrap, topic, records)
        job = await self.run(JobKind.SCAN, Selection(topic=topic))
        assert job.state == "done", job
        await self.redrive.caught_up()
        return places

    async def run(self, kind: JobKind, selection: Selection, rate: float = 0.0) -> Job:
        """Run a job to its end."""
        job = await self.redrive.start(kind, selection, by="ann", rate=rate, reason="because")
        return await self.ended(job.id)

    async def ended(self, job_id: str) -> Job:
        """A job once it has ended."""
        async with asyncio.timeout(60):
            while not (job := self.redrive.job(job_id)).state.is_final:  # noqa: ASYNC110 -- another process leads
                await asyncio.sleep(0.05)
        await self.redrive.caught_up()
        return job


@asynccontextmanager
async def running(
    bootstrap: str, namespace: str, folder: Path, *, partitions: int = 3, max_redrives: int = 3
) -> AsyncIterator[Bench]:
    """A bench; its topics are made where they are missing."""
    settings = Settings(
        brokers=(bootstrap,),
        catalog="c",
        cloudevents_source="s",
        namespace=namespace,
        topic_partitions=partitions,
        data_dir=str(folder),
        max_redrives=max_redrives,
    )
    own, specs = OwnTopics(namespace), TopicSpecs(settings)
    connection = Connection((bootstrap,), "tests")
    cluster = await Cluster.start(connection, ProducerOptions(), settings)
    orders: list[TargetOrder] = []
    try:
        for spec in (
            specs.staging(own.staging),
            specs.kept(own.audit),
            specs.dlq_index(own),
            specs.dlq_state(own),
            specs.jobs(own),
            specs.kept(f"{namespace}.order.created.dlq"),
        ):
            await cluster.know(spec)
        worker = f"tests/{uuid7()}"
        redrive = Redrive(settings, connection, cluster, own, SYSTEM_CLOCK, worker, orders.append)
        await redrive.open()
        try:
            async with asyncio.timeout(30):
                await redrive.caught_up()
            yield Bench(bootstrap, namespace, redrive, orders)
        finally:
            await redrive.close()
    finally:
        await cluster.close(5.0)


__all__ = ["FAILURE", "Bench", "create_topic", "letter", "running", "staged_headers"]
