"""Detours: events leave a sick target's lanes for the parked topic, and parked ones come back to be delivered.

Owns: what is evicted, in which order it is parked; which chunks may be delivered now.
Must not know: when a target is sick, when is the time to drain.
"""

from __future__ import annotations

import itertools

from pipeline.delivery import Delivery
from pipeline.dlq import Failure
from pipeline.kafka.cluster import Cluster
from pipeline.park import Diverted, is_known, is_skew
from pipeline.parking.metadata import Metadata
from pipeline.parking.parking import Parking
from pipeline.parking.sweep import Chunk
from pipeline.routes import Router
from pipeline.ticket import Ticket, ToTarget

__all__ = ["Detour"]


class Detour:
    """The ways between target lanes and the parked topic. Nothing here waits."""

    def __init__(
        self,
        delivery: Delivery,
        parking: Parking,
        targets: Cluster,
        metadata: Metadata,
        router: Router,
        *,
        parks_unknown: bool,
    ) -> None:
        self._delivery = delivery
        self._parking = parking
        self._targets = targets
        self._metadata = metadata
        self._router = router
        self._parks_unknown = parks_unknown

    def evict(self, target: str, reason: str) -> None:
        """Park everything that is in a target's lanes, by staging partition and offset (T5).

        Of what is being sent right now some may arrive all the same: it then comes twice, never late. Chunks of
        parked events just stay parked.
        """
        left: list[tuple[int, int, Ticket, int]] = []
        for parcel in self._targets.evict(target):
            assert isinstance(parcel, ToTarget), "only columns go to a target"
            ticket = parcel.ticket
            if isinstance(ticket.batch, Chunk):
                ticket.batch.lose(reason)
            elif self._delivery.is_under_way(ticket):
                records = ticket.batch.records
                left += [(ticket.batch.partition, records[i].offset, ticket, i) for i in parcel.left()]
        left.sort(key=lambda item: item[:2])
        for ticket, items in itertools.groupby(left, key=lambda item: item[2]):
            self._delivery.park(ticket, target, [index for *_, index in items])

    def drain(self, chunk: Chunk) -> str:
        """Deliver a chunk; it is told its end. Where that cannot be now: why, and nothing was written."""
        name = chunk.backlog.name
        others = frozenset(self._parking.diverted(chunk.partition).targets) - {name}
        outcome = self._delivery.plan(chunk.records, Diverted(others, parks_unknown=self._parks_unknown))
        if outcome.unknown_topics:
            for topic in outcome.unknown_topics:
                self._metadata.need(topic)
            return f"target topic not known yet: {', '.join(sorted(outcome.unknown_topics))}"
        if outcome.parked:
            return f"behind {', '.join(sorted(outcome.parked))}, which is parked itself"
        ticket = self._delivery.begin(chunk, lambda: _ended(chunk, ticket))
        self._delivery.write(ticket, outcome)
        return ""

    def move_on(self, chunk: Chunk, failure: Failure) -> str:
        """Dead-letter a chunk, in its order; it is told its end. Never refuses."""
        ticket = self._delivery.begin(chunk, lambda: _ended(chunk, ticket))
        self._delivery.move_on(ticket, failure)
        return ""

    def is_ready(self, name: str) -> bool:
        """Whether it is known where to deliver what is parked under a name."""
        if is_skew(name):
            return not self._parks_unknown or is_known(name, self._router.catalog)
        return self._metadata.need(name)

    def abandon(self, chunks: list[Chunk]) -> None:
        """Take chunks back; see `Delivery.abandon`."""
        self._delivery.abandon(chunks)


def _ended(chunk: Chunk, ticket: Ticket) -> None:
    chunk.reached = ticket.reached
    chunk.end()
