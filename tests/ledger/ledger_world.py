"""A namespace in memory, to be entered into the books: what was staged, and the ends it got, right or wrong.

Owns: records as workers and services write them, made by the shipped planner and dead-letter code. Must not know:
what the books make of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from catalog import Catalog, OwnTopics
from catalog.names import dlq_of
from pipeline.cloudevents import Dialect
from pipeline.dlq import Failure, dead_letter_headers
from pipeline.errors import ErrorClass
from pipeline.ledger.books import Books
from pipeline.ledger.findings import At, Findings, Spot
from pipeline.packing import unpack
from pipeline.partition import partition_of
from pipeline.plan import Limits, plan
from pipeline.record import RawHeader
from pipeline.routes import Router
from tests.catalogs.fifty import DEFINITIONS

NAMESPACE = "led"
CATALOG = Catalog(DEFINITIONS, namespace=NAMESPACE)
OWN = OwnTopics(NAMESPACE)
COUNTS = dict.fromkeys(CATALOG.topics, 2)
LIMITS = Limits(1_000_000, 1_040_000)
STAGING_PARTITIONS = 2


@dataclass(frozen=True)
class Written:
    """A record on a topic."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[RawHeader]
    timestamp: int = 1_000


class World:
    """Topics in memory. `deleted`: how many records staging has deleted in each partition."""

    def __init__(self, dialect: Dialect = "ce_", first_offset: int = 0) -> None:
        self.staging: dict[int, list[Written]] = {number: [] for number in range(STAGING_PARTITIONS)}
        self.targets: defaultdict[tuple[str, int], list[Written]] = defaultdict(list)
        self.kept: list[tuple[str, Written]] = []
        self.deleted = 0
        self.target_deleted: list[tuple[str, int | None]] = []
        self._first_offset = first_offset
        self._router = Router(CATALOG, dialect=dialect, type_prefix="test")

    def stage(
        self,
        event_id: str,
        *,
        tenant: str = "acme",
        definition: str = "thing.e0",
        more: Mapping[str, bytes] | None = None,
        timestamp: int = 1_000,
    ) -> At:
        """Stage an event; `more` are further headers."""
        key = tenant.encode()
        partition = partition_of(key, STAGING_PARTITIONS)
        records = self.staging[partition]
        headers: list[RawHeader] = [
            ("stage-version", b"1"),
            ("stage-definition", definition.encode()),
            ("stage-id", event_id.encode()),
            ("stage-time", b"2026-01-02T03:04:05Z"),
            ("stage-source", b"/ledger"),
            ("stage-tenant", key),
            *(more or {}).items(),
        ]
        offset = self._first_offset + len(records)
        records.append(Written(offset, key, b"{}", headers, timestamp))
        return At(partition, offset)

    def deliver(self, *places: At) -> Spot:
        """Deliver what was staged there, in this order; returns where the last one came."""
        assert places
        for at in places:
            result = plan([self.at(at)], self._router, COUNTS, LIMITS)
            (((topic, partition), column),) = result.columns.items()
            ((key, value, headers),) = map(unpack, column.records)
            target = self.targets[topic, partition]
            target.append(Written(len(target), key, value, list(headers)))
        return Spot(topic, partition, len(target) - 1)

    def dead_letter(self, at: At) -> Spot:
        """Dead-letter it."""
        record = self.at(at)
        headers = dead_letter_headers(
            record.headers,
            (),
            Failure(ErrorClass.VALIDATION, "bad"),
            source_topic="led.thing.e0",
            staging_partition=at.partition,
            staging_offset=at.offset,
            retry_count=0,
            failed_at=1.0,
            producer_id="w",
        )
        return self._keep(dlq_of("led.thing.e0"), record.key, record.value, headers)

    def park(self, at: At) -> None:
        """Park it."""
        record = self.at(at)
        headers: list[RawHeader] = [
            *record.headers,
            ("park-target", b"led.thing.e0"),
            ("park-staging-partition", b"%d" % at.partition),
            ("park-staging-offset", b"%d" % at.offset),
            ("park-reason", b"breaker open"),
            ("park-at", b"2026-01-02T03:04:05Z"),
        ]
        self._keep(OWN.parked, record.key, record.value, headers)

    def audit(self, at: At, action: str = "skipped", event_id: str | None = None) -> None:
        """Write an audit record of it."""
        shown = event_id or (dict(self.at(at).headers)["stage-id"] or b"").decode()
        entry = (
            f'{{"action": "{action}", "id": "{shown}", "topic": "{OWN.staging}", '
            f'"partition": {at.partition}, "offset": {at.offset}}}'
        )
        self._keep(OWN.audit, None, entry.encode(), [])

    def at(self, at: At) -> Written:
        """The staging record there."""
        return self.staging[at.partition][at.offset - self._first_offset]

    def judged(
        self,
        folder: Path,
        committed: Mapping[int, int] | None = None,
        *,
        limit: int = 1_000,
        run_entries: int = 5,
    ) -> Findings:
        """What the books make of all this; everything is committed unless said otherwise."""
        if committed is None:
            committed = {number: self._first_offset + len(of) for number, of in self.staging.items()}
        books = Books(CATALOG, OWN, folder, committed, limit, run_entries=run_entries)
        for topic, record in self.kept:
            books.add_end(topic, 0, record)
        if self.deleted:
            books.staging_deleted()
        for partition, staged in self.staging.items():
            for record in staged[self.deleted :]:
                books.add_staged(partition, record)
        for topic, oldest_ms in self.target_deleted:
            books.target_deleted(topic, oldest_ms)
        for (topic, partition), delivered in self.targets.items():
            for record in delivered:
                books.add_delivered(topic, partition, record)
        return books.judge()

    def _keep(self, topic: str, key: bytes | None, value: bytes | None, headers: list[RawHeader]) -> Spot:
        self.kept.append((topic, Written(len(self.kept), key, value, headers)))
        return Spot(topic, 0, len(self.kept) - 1)
