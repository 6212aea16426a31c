"""A namespace on a real broker as a worker would have left it, but for the faults a test injects.

Owns: staging and delivering by the shipped planner, the three faults. Must not know: the ledger.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from confluent_kafka import Consumer, TopicPartition

from catalog import Catalog
from pipeline.packing import unpack
from pipeline.partition import partition_of
from pipeline.plan import Limits, plan
from pipeline.record import RawHeader
from pipeline.routes import Router
from tests.catalogs.fifty import DEFINITIONS
from tests.kafka_client import OutRecord, create_topic, produce

KINDS = 3
TENANTS = 500
PARTITIONS = 3
_CHUNK = 20_000
_STEP = KINDS * TENANTS
"""Two events that are so far apart have tenant and definition in common."""


@dataclass(frozen=True)
class _Staged:
    offset: int
    key: bytes
    value: bytes
    headers: list[RawHeader]
    timestamp: int = 0


class Load:
    """`count` events, all committed and delivered once, in order; but one is lost, one comes twice, two are swapped."""

    def __init__(self, bootstrap: str, namespace: str, count: int) -> None:
        self._bootstrap = bootstrap
        self._namespace = namespace
        self._count = count
        self.lost, self.double, self.late = count // 2, count // 3, count // 4

    def write(self) -> None:
        """Write it all."""
        catalog = Catalog(DEFINITIONS, namespace=self._namespace)
        router = Router(catalog, dialect="ce_", type_prefix="test")
        topics = [f"{self._namespace}.thing.e{kind}" for kind in range(KINDS)]
        for topic in (f"{self._namespace}.staging", *topics):
            create_topic(self._bootstrap, topic, PARTITIONS)
        counts = dict.fromkeys(catalog.topics, PARTITIONS)
        for first in range(0, self._count, _CHUNK):
            numbers = range(first, min(self._count, first + _CHUNK))
            produce(self._bootstrap, f"{self._namespace}.staging", map(_staging_record, numbers))
            records = [_staged(number) for number in self._delivered(numbers)]
            columns = plan(records, router, counts, Limits(1_000_000, 1_040_000)).columns
            for (topic, partition), column in columns.items():
                produce(
                    self._bootstrap,
                    topic,
                    (OutRecord(*unpack(packed), partition) for packed in column.records),  # type: ignore[arg-type]
                )
        self.commit(PARTITIONS)

    def _delivered(self, numbers: range) -> Iterator[int]:
        for number in numbers:
            if number == self.late:
                yield number + _STEP
            elif number == self.late + _STEP:
                yield self.late
            elif number != self.lost:
                yield number
                if number == self.double:
                    yield number

    def commit(self, partitions: int) -> None:
        """Commit all of staging, as a worker does that has ended it."""
        staging = f"{self._namespace}.staging"
        consumer = Consumer({"bootstrap.servers": self._bootstrap, "group.id": f"{self._namespace}-pipeline"})
        places = [TopicPartition(staging, partition) for partition in range(partitions)]
        ends = [consumer.get_watermark_offsets(place, timeout=30)[1] for place in places]
        consumer.commit(
            offsets=[
                TopicPartition(staging, place.partition, end) for place, end in zip(places, ends, strict=True)
            ],
            asynchronous=False,
        )
        consumer.close()


def _headers(number: int) -> list[tuple[str, bytes]]:
    return [
        ("stage-version", b"1"),
        ("stage-definition", b"thing.e%d" % (number % KINDS)),
        ("stage-id", b"event-%d" % number),
        ("stage-time", b"2026-01-02T03:04:05Z"),
        ("stage-source", b"/ledger"),
        ("stage-tenant", _key(number)),
    ]


def _key(number: int) -> bytes:
    return b"tenant-%d" % (number // KINDS % TENANTS)


def _staging_record(number: int) -> OutRecord:
    key = _key(number)
    return OutRecord(key, b'{"n": %d}' % number, _headers(number), partition_of(key, PARTITIONS))


def _staged(number: int) -> _Staged:
    return _Staged(number, _key(number), b'{"n": %d}' % number, [*_headers(number)])
