"""Carrying out: what was planned for a batch is written, and every record of it is followed to one of its ends.

Owns: the one loop from verdicts to writes (target, dead-letter topic, audit), the end of a batch (T6).
Must not know: Faust, how the plan is made, how a producer keeps order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from catalog import OwnTopics
from catalog.names import DLQ_SUFFIX
from pipeline import staging
from pipeline.clock import Clock
from pipeline.cloudevents import is_framing_header
from pipeline.dlq import PAYLOAD_BYTES, PAYLOAD_OMITTED, Failure
from pipeline.errors import classify
from pipeline.kafka.cluster import Cluster
from pipeline.kafka.lane import Parcel
from pipeline.kafka.topics import TopicSpecs
from pipeline.kept import dead_letter, skip_record
from pipeline.meter import Meter
from pipeline.partition import key_hash
from pipeline.plan import Column, Limits, OutRecord, Rejected, StagedRecord, is_dead_lettered, plan
from pipeline.redrive.entry import index_entry
from pipeline.redrive.model import Coordinates
from pipeline.routes import Router

__all__ = ["Delivery", "StagedBatch"]

log = logging.getLogger(__name__)

_TOO_LARGE = frozenset({10, 18})
"""Protocol error codes MESSAGE_TOO_LARGE and RECORD_LIST_TOO_LARGE."""
_RETRY_S = 5.0


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
        meter: Meter,
    ) -> None:
        self._router = router
        self._limits = limits
        self._targets = targets
        self._own = own
        self._topics = topics
        self._specs = specs
        self._clock = clock
        self._producer_id = producer_id
        self.meter = meter
        self._under_way: dict[StagedBatch, _Ticket] = {}
        self._put_off: list[_ToKept] = []

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
        self.meter.consumed(ticket.left)
        for (topic, partition), column in outcome.columns.items():
            parcel = _ToTarget(column, ticket, self)
            ticket.parcels.append(parcel)
            self._targets.put(topic, partition, parcel)
        for rejected in outcome.rejected:
            self.reject(ticket, rejected)
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

    def refused(self, ticket: _Ticket, column: Column, at: int, error: BaseException) -> None:
        """The target will never take a record of ours: it is poison."""
        index, framed = column.sources[at], column.records[at][2]
        failure = Failure(classify(error), f"refused by the broker: {error}")
        wanted = is_dead_lettered(ticket.batch.records[index], column.route, self._router)
        rejected = Rejected(index, failure, column.route, dead_letter=wanted)
        self.reject(ticket, rejected, [header for header in framed if is_framing_header(header[0])])

    def reject(self, ticket: _Ticket, rejected: Rejected, framed: staging.RawHeaders = ()) -> None:
        """Dead-letter a record, or skip it with an audit record where its policy says so (D6)."""
        record, partition = ticket.batch.records[rejected.index], ticket.batch.partition
        now, route, own = self._clock.time(), rejected.route, self._topics
        target = route.topic if route is not None else own.staging
        if rejected.dead_letter:
            topic, like = route.dlq if route is not None else own.staging_dlq, target
            kept = dead_letter(
                record,
                rejected,
                framed,
                target=target,
                partition=partition,
                failed_at=now,
                producer_id=self._producer_id,
            )
        else:
            topic, like = own.audit, own.staging
            kept = skip_record(
                record,
                rejected.failure,
                topic=like,
                partition=partition,
                at=now,
                producer_id=self._producer_id,
            )
        self.keep(_ToKept(kept, ticket, self, topic, like, rejected.failure))

    def keep(self, parcel: _ToKept) -> None:
        """Write to a topic of our own, created with as many partitions as the topic it is `like` (Q1)."""
        topic, like, ticket = parcel.topic, parcel.like, parcel.ticket
        if self._under_way.get(ticket.batch) is not ticket:
            return  # somebody else's by now
        count = self._targets.partitions.get(like) or self._own.partitions.get(like)
        if count is None and topic not in self._own.partitions:
            self._targets.learn(self._specs.target(like), lambda: self.keep(parcel))
            return
        ticket.parcels.append(parcel)
        key = parcel.records[0][0]
        self._own.put_when_known(
            self._specs.kept(topic, count), key_hash(key) if key else ticket.batch.partition, parcel
        )

    def keep_later(self, parcel: _ToKept, error: BaseException) -> None:
        """The same after a pause, for a topic that refused the parcel (Q4)."""
        if not self._put_off:  # one message and one timer, however many records wait
            log.error(
                "%s refuses a record, so staging partition %s cannot go on; will try again: %r",
                parcel.topic,
                parcel.ticket.batch.partition,
                error,
            )
            asyncio.get_running_loop().call_later(_RETRY_S, self._keep_again)
        self._put_off.append(parcel)

    def _keep_again(self) -> None:
        parcels, self._put_off = self._put_off, []
        for parcel in parcels:
            self.keep(parcel)

    def kept(self, parcel: _ToKept, offset: int) -> None:
        """A parcel is on its topic. That of a dead letter is the record's end once the index knows it, too."""
        if not parcel.is_dead_letter:
            if parcel.topic == self._topics.audit:
                self.meter.skipped(parcel.failure)
            self.ended(parcel.ticket, 1)
            return
        self.meter.dead_lettered(parcel.topic, parcel.failure)
        key, value, headers = parcel.records[0]
        if offset < 0:
            log.warning(
                "%s has a dead letter whose offset the broker does not tell: `dlq scan --topic %s` finds it",
                parcel.topic,
                parcel.topic,
            )
            self.ended(parcel.ticket, 1)
            return
        hashed = key_hash(key) if key else parcel.ticket.batch.partition
        place = Coordinates(parcel.topic, hashed % self._own.partitions[parcel.topic], offset)
        route = self._router.route(dict(headers).get(staging.DEFINITION) or b"")
        version = route.definition.schema_version if route is not None else ""
        entry = index_entry(place, key, value, headers, failed_at=self._clock.time(), schema_version=version)
        index, staged = self._topics.dlq_index, self._topics.staging
        self.keep(_ToKept(entry, parcel.ticket, self, index, staged, parcel.failure))

    def ended(self, ticket: _Ticket, count: int) -> None:
        """`count` records of a batch reached their end, awaited."""
        ticket.left -= count
        if ticket.left == 0 and self._under_way.pop(ticket.batch, None) is not None:
            ticket.on_end()


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
        record = self._ticket.batch.records[self._column.sources[first]]
        self._delivery.meter.delivered(self._column.route.topic, record, count)
        self._delivery.ended(self._ticket, count)

    def refused(self, index: int, error: BaseException) -> None:
        """It ends elsewhere."""
        self._delivery.refused(self._ticket, self._column, index, error)

    def given_up(self, first: int, count: int, error: BaseException) -> None:
        """The worker lets go of it; not being committed, it will be delivered again."""


class _ToKept(Parcel):
    """A dead letter or an audit record on its way: the end of one staging record."""

    __slots__ = ("_delivery", "_whole", "failure", "like", "ticket", "topic")

    def __init__(
        self,
        record: OutRecord,
        ticket: _Ticket,
        delivery: Delivery,
        topic: str,
        like: str,
        failure: Failure,
        whole: OutRecord | None = None,
    ) -> None:
        super().__init__((record,))
        self.topic = topic
        self.like = like
        self.ticket = ticket
        self._delivery = delivery
        self.failure = failure
        self._whole = whole or record

    def acked(self, first: int, count: int, offset: int) -> None:  # noqa: ARG002 -- one record
        """It is kept."""
        self._delivery.kept(self, offset)

    def refused(self, index: int, error: BaseException) -> None:  # noqa: ARG002 -- one record
        """Too large even for its dead-letter topic: keep everything but the payload (Q2). Else try again (Q4)."""
        key, value, headers = self.records[0]
        if value is not None and getattr(error, "errno", None) in _TOO_LARGE and self.is_dead_letter:
            omitted = [(PAYLOAD_OMITTED, b"true"), (PAYLOAD_BYTES, str(len(value)).encode())]
            self._delivery.keep(self._again((key, None, [*headers, *omitted])))
        else:
            self._delivery.keep_later(self._again(self._whole), error)

    def given_up(self, first: int, count: int, error: BaseException) -> None:
        """As for a target."""

    @property
    def is_dead_letter(self) -> bool:
        """Whether it goes to a dead-letter topic."""
        return self.topic.endswith(DLQ_SUFFIX)

    def _again(self, record: OutRecord) -> _ToKept:
        return _ToKept(record, self.ticket, self._delivery, self.topic, self.like, self.failure, self._whole)
