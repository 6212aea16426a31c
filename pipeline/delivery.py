"""Carrying out: what was planned for a batch is written, and every record of it is followed to one of its ends.

Owns: the one loop from verdicts to writes (target, dead-letter topic, audit), the end of a batch (T6).
Must not know: Faust, how the plan is made, how a producer keeps order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from pydantic_core import to_json

from catalog import OwnTopics
from catalog.names import DLQ_SUFFIX
from pipeline import staging
from pipeline.clock import Clock, rfc3339
from pipeline.cloudevents import is_framing_header
from pipeline.dlq import PAYLOAD_BYTES, PAYLOAD_OMITTED, Failure, clean_message, dead_letter_headers
from pipeline.errors import classify
from pipeline.kafka.cluster import Cluster
from pipeline.kafka.lane import Parcel
from pipeline.kafka.topics import TopicSpecs
from pipeline.meter import Meter
from pipeline.partition import key_hash
from pipeline.plan import Column, Limits, OutRecord, Rejected, StagedRecord, is_dead_lettered, plan
from pipeline.routes import Router

__all__ = ["Delivery", "StagedBatch"]

log = logging.getLogger(__name__)

_TOO_LARGE = frozenset({10, 18})
"""Protocol error codes MESSAGE_TOO_LARGE and RECORD_LIST_TOO_LARGE."""
_RETRY_S = 5.0
_SHOWN_BYTES = 256


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
        record = ticket.batch.records[rejected.index]
        if rejected.dead_letter:
            self.keep(self._dead_letter(ticket, record, rejected, framed))
        else:
            self.keep(self._audit(ticket, record, rejected.failure))

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

    def ended(self, ticket: _Ticket, count: int) -> None:
        """`count` records of a batch reached their end, awaited."""
        ticket.left -= count
        if ticket.left == 0 and self._under_way.pop(ticket.batch, None) is not None:
            ticket.on_end()

    def _dead_letter(
        self, ticket: _Ticket, record: StagedRecord, rejected: Rejected, framed: staging.RawHeaders
    ) -> _ToKept:
        route = rejected.route
        target = route.topic if route is not None else self._topics.staging
        headers = dead_letter_headers(
            record.headers,
            framed,
            rejected.failure,
            source_topic=target,
            staging_partition=ticket.batch.partition,
            staging_offset=record.offset,
            retry_count=0,
            failed_at=self._clock.time(),
            producer_id=self._producer_id,
            definition=_shown(record, staging.DEFINITION),
            schema_version=route.definition.schema_version if route is not None else "",
        )
        topic = route.dlq if route is not None else self._topics.staging_dlq
        return _ToKept((record.key, record.value, headers), ticket, self, topic, target, rejected.failure)

    def _audit(self, ticket: _Ticket, record: StagedRecord, failure: Failure) -> _ToKept:
        partition, offset = ticket.batch.partition, record.offset
        entry = {
            "action": "skipped",
            "at": rfc3339(self._clock.time()),
            "id": _shown(record, staging.ID),
            "definition": _shown(record, staging.DEFINITION),
            "topic": self._topics.staging,
            "partition": partition,
            "offset": offset,
            "error_class": failure.error_class,
            "reason": clean_message(failure.message),
            "by": self._producer_id,
        }
        key = f"{self._topics.staging}/{partition}/{offset}".encode()
        kept: OutRecord = (key, to_json(entry), [("content-type", b"application/json")])
        return _ToKept(kept, ticket, self, self._topics.audit, self._topics.staging, failure)


def _shown(record: StagedRecord, name: str) -> str:
    """A header of a record as text of at most 256 bytes; empty where there is none."""
    return (dict(record.headers).get(name) or b"")[:_SHOWN_BYTES].decode(errors="replace")


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

    __slots__ = ("_delivery", "_failure", "_whole", "like", "ticket", "topic")

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
        self._failure = failure
        self._whole = whole or record

    def acked(self, first: int, count: int, offset: int) -> None:  # noqa: ARG002
        """It is kept."""
        if self._is_dead_letter:
            self._delivery.meter.dead_lettered(self.topic, self._failure)
        else:
            self._delivery.meter.skipped(self._failure)
        self._delivery.ended(self.ticket, count)

    def refused(self, index: int, error: BaseException) -> None:  # noqa: ARG002 -- one record
        """Too large even for its dead-letter topic: keep everything but the payload (Q2). Else try again (Q4)."""
        key, value, headers = self.records[0]
        if value is not None and getattr(error, "errno", None) in _TOO_LARGE and self._is_dead_letter:
            omitted = [(PAYLOAD_OMITTED, b"true"), (PAYLOAD_BYTES, str(len(value)).encode())]
            self._delivery.keep(self._again((key, None, [*headers, *omitted])))
        else:
            self._delivery.keep_later(self._again(self._whole), error)

    def given_up(self, first: int, count: int, error: BaseException) -> None:
        """As for a target."""

    @property
    def _is_dead_letter(self) -> bool:
        return self.topic.endswith(DLQ_SUFFIX)

    def _again(self, record: OutRecord) -> _ToKept:
        return _ToKept(record, self.ticket, self._delivery, self.topic, self.like, self._failure, self._whole)
