"""Carrying out: what was planned for a batch is written, and every record of it is followed to one of its ends.

Owns: the one loop from verdicts to writes (target, dead-letter topic, audit), the end of a batch (T6).
Must not know: Faust, how the plan is made, how a producer keeps order.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from pydantic_core import to_json

from catalog import OwnTopics
from pipeline import staging
from pipeline.clock import Clock, rfc3339
from pipeline.dlq import PAYLOAD_BYTES, PAYLOAD_OMITTED, Failure, dead_letter_headers
from pipeline.errors import ErrorClass, classify
from pipeline.kafka.cluster import Cluster
from pipeline.kafka.lane import Parcel
from pipeline.kafka.topics import TopicSpecs
from pipeline.partition import key_hash
from pipeline.plan import Column, Limits, OutRecord, Rejected, StagedRecord, plan
from pipeline.routes import Router

__all__ = ["Delivery", "StagedBatch"]

log = logging.getLogger(__name__)


class StagedBatch(Protocol):
    """Consecutive records of one staging partition."""

    @property
    def records(self) -> Sequence[StagedRecord]:
        """The records, in order."""
        ...

    @property
    def partition(self) -> int:
        """The staging partition."""
        ...


class Delivery:
    """Delivers batches. Nothing here waits: ends are reported by callback, from the producers' loop."""

    def __init__(
        self,
        router: Router,
        limits: Limits,
        *,
        targets: Cluster,
        own: Cluster,
        topics: OwnTopics,
        specs: TopicSpecs,
        clock: Clock,
        producer_id: str,
    ) -> None:
        self._router = router
        self._limits = limits
        self._targets = targets
        self._own = own
        self._topics = topics
        self._specs = specs
        self._clock = clock
        self._producer_id = producer_id
        self._under_way: dict[StagedBatch, _Ticket] = {}

    def deliver(self, batch: StagedBatch, on_end: Callable[[], None]) -> set[str]:
        """Write everything a batch asks for; `on_end` is called once every record has reached an end.

        Out: empty; or the target topics whose partition count has to be learnt first. Then nothing was
        written, and the batch is to be delivered again later.
        """
        outcome = plan(batch.records, self._router, self._targets.partitions, self._limits)
        if outcome.unknown_topics:
            return outcome.unknown_topics
        ticket = _Ticket(batch, len(batch.records), on_end)
        self._under_way[batch] = ticket
        for (topic, partition), column in outcome.columns.items():
            parcel = _ToTarget(column, ticket, self)
            ticket.parcels.append(parcel)
            self._targets.put(topic, partition, parcel)
        for rejected in outcome.rejected:
            self.reject(ticket, rejected, ())
        return outcome.unknown_topics

    def abandon(self, batches: Iterable[StagedBatch]) -> None:
        """Take back what is not written yet of batches that belong to somebody else now."""
        parcels: set[Parcel] = set()
        for batch in batches:
            ticket = self._under_way.pop(batch, None)
            if ticket is not None:
                parcels.update(ticket.parcels)
        self._targets.withdraw(parcels)
        if self._own is not self._targets:
            self._own.withdraw(parcels)

    def reject(self, ticket: _Ticket, rejected: Rejected, framed: Sequence[staging.Header]) -> None:
        """Dead-letter a record, or skip it with an audit record where its policy says so (D6)."""
        record = ticket.batch.records[rejected.index]
        route = rejected.route
        if rejected.dead_letter:
            source_topic = route.topic if route is not None else self._topics.staging
            headers = dead_letter_headers(
                record.headers,
                framed,
                rejected.failure,
                source_topic=source_topic,
                staging_partition=ticket.batch.partition,
                staging_offset=record.offset,
                retry_count=0,
                failed_at=self._clock.time(),
                producer_id=self._producer_id,
                definition=route.definition.key if route is not None else "",
                schema_version=route.definition.schema_version if route is not None else "",
            )
            kept: OutRecord = (record.key, record.value, headers)
            topic = route.dlq if route is not None else self._topics.staging_dlq
            like = route.topic if route is not None else self._topics.staging
        else:
            kept = (
                record.key,
                self._audit(ticket, record, rejected.failure),
                [("content-type", b"application/json")],
            )
            topic, like = self._topics.audit, self._topics.staging
        self.keep(topic, like, _ToKept(kept, ticket, self, topic, like))

    def keep(self, topic: str, like: str, parcel: _ToKept) -> None:
        """Write to a topic of our own, created with as many partitions as the topic it is `like`."""
        parcel.ticket.parcels.append(parcel)
        key = parcel.records[0][0]
        spec = self._specs.kept(topic, self._targets.partitions.get(like) or self._own.partitions.get(like))
        self._own.put_when_known(spec, key_hash(key) if key else parcel.ticket.batch.partition, parcel)

    def ended(self, ticket: _Ticket, count: int) -> None:
        """`count` records of a batch reached their end, awaited."""
        ticket.left -= count
        if ticket.left == 0 and self._under_way.pop(ticket.batch, None) is not None:
            ticket.on_end()

    def _audit(self, ticket: _Ticket, record: StagedRecord, failure: Failure) -> bytes:
        fields = dict(record.headers)
        return to_json(
            {
                "action": "skipped",
                "at": rfc3339(self._clock.time()),
                "id": fields.get(staging.ID, b"").decode(errors="replace"),
                "definition": fields.get(staging.DEFINITION, b"").decode(errors="replace"),
                "topic": self._topics.staging,
                "partition": ticket.batch.partition,
                "offset": record.offset,
                "error_class": failure.error_class,
                "reason": failure.message,
                "by": self._producer_id,
            }
        )


class _Ticket:
    """A batch under way: how many of its records have not reached an end, and whom to tell when none is left."""

    __slots__ = ("batch", "left", "on_end", "parcels")

    def __init__(self, batch: StagedBatch, left: int, on_end: Callable[[], None]) -> None:
        self.batch = batch
        self.left = left
        self.on_end = on_end
        self.parcels: list[Parcel] = []


class _ToTarget(Parcel):
    """A column on its way to one partition of one target."""

    __slots__ = ("_column", "_delivery", "_ticket")

    def __init__(self, column: Column, ticket: _Ticket, delivery: Delivery) -> None:
        super().__init__(column.records)
        self._column = column
        self._ticket = ticket
        self._delivery = delivery

    def acked(self, first: int, count: int, offset: int) -> None:  # noqa: ARG002 -- ends are counted
        """On the target."""
        self._delivery.ended(self._ticket, count)

    def refused(self, index: int, error: BaseException) -> None:
        """The target will never take this record: it is poison."""
        column = self._column
        failure = Failure(classify(error), f"refused by the broker: {error}")
        self._delivery.reject(
            self._ticket, Rejected(column.sources[index], failure, column.route), column.records[index][2]
        )

    def given_up(self, first: int, count: int, error: BaseException) -> None:
        """The worker lets go of it; not being committed, it will be delivered again."""


class _ToKept(Parcel):
    """A dead letter or an audit record on its way: the end of one staging record."""

    __slots__ = ("_delivery", "_like", "_topic", "ticket")

    def __init__(self, record: OutRecord, ticket: _Ticket, delivery: Delivery, topic: str, like: str) -> None:
        super().__init__((record,))
        self.ticket = ticket
        self._delivery = delivery
        self._topic = topic
        self._like = like

    def acked(self, first: int, count: int, offset: int) -> None:  # noqa: ARG002
        """It is kept."""
        self._delivery.ended(self.ticket, count)

    def refused(self, index: int, error: BaseException) -> None:  # noqa: ARG002 -- one record
        """Too large even for its dead-letter topic: keep everything but the payload (Q2)."""
        key, value, headers = self.records[0]
        if value is None or classify(error) is not ErrorClass.SERIALIZATION:
            # Nothing is left to drop. The offset is not committed (Q4); the partition stands still, loudly.
            log.error("%s refuses a dead letter, its staging partition cannot go on: %r", self._topic, error)
            return
        marked = [*headers, (PAYLOAD_OMITTED, b"true"), (PAYLOAD_BYTES, str(len(value)).encode())]
        smaller = _ToKept((key, None, marked), self.ticket, self._delivery, self._topic, self._like)
        self._delivery.keep(self._topic, self._like, smaller)

    def given_up(self, first: int, count: int, error: BaseException) -> None:
        """As for a target."""
