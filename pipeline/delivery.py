"""Carrying out: what was planned for a batch is written, and every record of it is followed to one of its ends.

Owns: the way from verdicts to writes (target, parked topic, dead-letter topic, audit), the end of a batch (T6).
Must not know: Faust, how the plan is made, how a producer keeps order.
"""

from __future__ import annotations

import asyncio
import bisect
import logging
from collections.abc import Callable, Iterable, Sequence

from catalog import OwnTopics
from pipeline import staging
from pipeline.clock import Clock
from pipeline.cloudevents import is_framing_header
from pipeline.dlq import Failure
from pipeline.errors import classify
from pipeline.kafka.cluster import Cluster
from pipeline.kafka.lane import Parcel
from pipeline.kafka.topics import TopicSpecs
from pipeline.kept import dead_letter, skip_record
from pipeline.meter import Meter
from pipeline.packing import unpack
from pipeline.park import Diverted
from pipeline.parking.backlog import Stray
from pipeline.parking.parking import Parking
from pipeline.partition import key_hash
from pipeline.plan import Column, Limits, Plan, Rejected, is_dead_lettered, plan
from pipeline.record import RawHeaders, ReadRecord
from pipeline.redrive.entry import index_entry
from pipeline.redrive.model import Coordinates
from pipeline.routes import Router
from pipeline.ticket import Hold, StagedBatch, Ticket, ToKept, ToTarget

__all__ = ["Delivery", "StagedBatch"]

log = logging.getLogger(__name__)

_RETRY_S = 5.0


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
        parking: Parking,
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
        self._parking = parking
        self._clock = clock
        self._producer_id = producer_id
        self._meter = meter
        self._under_way: dict[StagedBatch, Ticket] = {}
        self._put_off: list[ToKept] = []

    def deliver(self, batch: StagedBatch, on_end: Callable[[], None]) -> Hold | None:
        """Write everything a batch asks for; `on_end` is called once every record has reached an end.

        Out: None; or what has to happen first. Then nothing was written, and the batch is to be delivered again.
        """
        diverted = self._parking.diverted(batch.partition)
        outcome = self.plan(batch.records, diverted)
        unknown = outcome.unknown_topics | self._park_without_dead_letters(outcome, diverted)
        if unknown:
            return Hold(f"target topic not known yet: {', '.join(sorted(unknown))}", frozenset(unknown))
        full = self._parking.full(batch.partition) if outcome.parked else ""
        if full:
            return Hold(full)
        self._meter.consumed(len(batch.records))
        self.write(self.begin(batch, on_end), outcome)
        return None

    def plan(self, records: Sequence[ReadRecord], diverted: Diverted) -> Plan:
        """What is to be written for these records of one staging partition."""
        return plan(records, self._router, self._targets.partitions, self._limits, diverted)

    def _park_without_dead_letters(self, outcome: Plan, diverted: Diverted) -> set[str]:
        """A dead-letter topic that does not exist yet waits for its target's partition count (Q1). Out: the targets
        to ask for it; where one is shut, what is rejected is parked with its events, and rejected again later."""
        unknown = set()
        for rejected in list(outcome.rejected):
            route = rejected.route
            if route is None or not rejected.dead_letter or route.dlq in self._own.partitions:
                continue
            if route.topic in self._targets.partitions:
                continue
            if route.topic in diverted.targets:
                outcome.rejected.remove(rejected)
                bisect.insort(outcome.parked.setdefault(route.topic, []), rejected.index)
            else:
                unknown.add(route.topic)
        return unknown

    def begin(self, batch: StagedBatch, on_end: Callable[[], None]) -> Ticket:
        """Follow a batch from now on."""
        ticket = self._under_way[batch] = Ticket(batch, len(batch.records), on_end)
        return ticket

    def is_under_way(self, ticket: Ticket) -> bool:
        """Whether its batch is still ours and has not ended."""
        return self._under_way.get(ticket.batch) is ticket

    def write(self, ticket: Ticket, outcome: Plan, at: Sequence[int] | None = None) -> None:
        """Write what was planned. `at`: which records of the batch were planned, where not all."""
        for (topic, partition), column in outcome.columns.items():
            if at is not None:
                column.sources = [at[source] for source in column.sources]
            parcel = ToTarget(column, ticket, self)
            ticket.parcels.append(parcel)
            self._targets.put(topic, partition, parcel)
        for rejected in outcome.rejected:
            if at is not None:
                rejected.index = at[rejected.index]
            self.reject(ticket, rejected)
        for name, indices in outcome.parked.items():
            self.park(ticket, name, indices if at is None else [at[index] for index in indices])

    def park(self, ticket: Ticket, name: str, indices: Sequence[int]) -> None:
        """Records of a batch, in order, follow behind what is parked under a name."""
        records = [ticket.batch.records[index] for index in indices]
        stray = Stray(
            records, lambda count: self.ended(ticket, count), lambda: self._deliver_after_all(ticket, indices)
        )
        parcel = self._parking.divert(ticket.batch.partition, name, stray)
        if parcel is not None:
            ticket.parcels.append(parcel)

    def _deliver_after_all(self, ticket: Ticket, indices: Sequence[int]) -> None:
        if self.is_under_way(ticket):
            records = [ticket.batch.records[index] for index in indices]
            outcome = self.plan(records, self._parking.diverted(ticket.batch.partition))
            if outcome.unknown_topics:  # known once, forgotten since
                diverted = self._parking.diverted(ticket.batch.partition)
                unknown = frozenset(diverted.targets) | outcome.unknown_topics
                outcome = self.plan(records, diverted._replace(targets=unknown))
            self.write(ticket, outcome, indices)

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

    def reached(self, ticket: Ticket, column: Column, first: int, count: int) -> None:
        """`count` records of a column, from the `first` on, are on their target."""
        self._meter.delivered(column, first, count, ticket.batch.records)
        ticket.reached += count
        self._parking.reached(column.route.topic, count)
        self.ended(ticket, count)

    def refused(self, ticket: Ticket, column: Column, at: int, error: BaseException, retries: int) -> None:
        """The target will never take a record of ours: it is poison."""
        index, (_, _, framed) = column.sources[at], unpack(column.records[at])
        failure = Failure(classify(error), f"refused by the broker: {error}")
        wanted = is_dead_lettered(ticket.batch.records[index], column.route, self._router)
        rejected = Rejected(index, failure, column.route, dead_letter=wanted)
        self.reject(ticket, rejected, [header for header in framed if is_framing_header(header[0])], retries)

    def move_on(self, ticket: Ticket, failure: Failure) -> None:
        """Dead-letter every record of a batch that was parked: none is at fault, so `dlq=never` is not asked."""
        for index, record in enumerate(ticket.batch.records):
            route = self._router.route(dict(record.headers).get(staging.DEFINITION) or b"")
            self.reject(ticket, Rejected(index, failure, route), failed_at=record.timestamp / 1000)

    def reject(
        self,
        ticket: Ticket,
        rejected: Rejected,
        framed: RawHeaders = (),
        retries: int = 0,
        failed_at: float | None = None,
    ) -> None:
        """Dead-letter a record, or skip it with an audit record where its policy says so (D6).

        `failed_at`: seconds since 1970, None: now.
        """
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
                retries=retries,
                failed_at=now if failed_at is None else failed_at,
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
        self.keep(ToKept(kept, ticket, self, topic, like, rejected.failure))

    def keep(self, parcel: ToKept) -> None:
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

    def keep_later(self, parcel: ToKept, error: BaseException) -> None:
        """The same after a pause, for a topic that refused the parcel (Q4)."""
        if not self._put_off:  # one message and one timer, however many records wait
            log.error(
                "delivery.not_kept topic=%s partition=%d error=%r -- the staging partition waits",
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

    def kept(self, parcel: ToKept, offset: int) -> None:
        """A parcel is on its topic. That of a dead letter is the record's end once the index knows it, too."""
        if not parcel.is_dead_letter:
            if parcel.topic == self._topics.audit:
                self._meter.skipped(parcel.failure)
            self.ended(parcel.ticket, 1)
            return
        self._meter.dead_lettered(parcel.topic, parcel.failure)
        key, value, headers = parcel.records[0]
        if offset < 0:
            log.warning(
                "delivery.not_indexed topic=%s -- the broker tells no offset; `dlq scan --topic` finds the dead letter",
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
        self.keep(ToKept(entry, parcel.ticket, self, index, staged, parcel.failure))

    def ended(self, ticket: Ticket, count: int) -> None:
        """`count` records of a batch reached their end, awaited."""
        ticket.left -= count
        if ticket.left == 0 and self._under_way.pop(ticket.batch, None) is not None:
            on_end = ticket.on_end
            ticket.let_go()
            on_end()
