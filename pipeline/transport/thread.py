"""Faust's consumer thread, with what Faust leaves at aiokafka's defaults or does not ask at all.

Owns: the fetch wait, the isolation level, staying in the group while nothing may be fetched, noticing that the
group is lost for good.
Must not know: batches.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import ConsumerStoppedError
from faust.transport.consumer import RecordMap
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from pipeline.kafka.connection import REQUEST_TIMEOUT_S, Connection

__all__ = ["ConsumerThread", "Fetched"]

FETCH_WAIT_MS, IDLE_FETCH_WAIT_MS = 200, 1_000
"""How long a broker may wait for records to come: while any come, and after some seconds without. Faust says 1,500. A
partition whose records were left with aiokafka for want of room is not part of the request under way, and waits until
that is answered; each request of an idle worker costs."""
_IDLE_S = 5.0

METADATA_AGE_S = 15.0
"""How old what is known of topics may get. aiokafka says 300. A member that leads a rebalance while no broker
answers knows of no partitions and gives none to anybody, until it learns better."""


class Fetched(dict[TP, list[Any]]):
    """What one fetch brought, and for each partition the positions of the consumer before and after it.

    Records need not follow one another: between them stand the markers of transactions, and what was compacted
    away. Positions do.
    """

    def __init__(self, records: RecordMap, before: Mapping[TP, int], after: Mapping[TP, int]) -> None:
        super().__init__(records)
        self.before = before
        self.after = after


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread that fetches, commits and sends heartbeats, over `connection`."""

    connection: Connection
    stretch: int = 1
    """How many times Faust's `broker_max_poll_records` a fetch may bring."""
    _idle_from = 0.0
    """Monotonic time from which on, without records, it is idle."""

    def check(self) -> None:
        """Tell aiokafka that we are alive, and ask whether it is. To be called at least every few seconds.

        aiokafka leaves the group after `max_poll_interval` without a fetch, and does not join again while there
        is none: a worker whose partitions all wait would be gone for good. And it keeps the error that ended
        its coordination (an authorisation that was refused, say) until somebody asks, which Faust does not.
        Raises that error: a worker that cannot go on must exit.
        """
        consumer = self._ensure_consumer()
        consumer._subscription._last_fetch_ended = time.monotonic()  # noqa: SLF001
        coordinator = consumer._coordinator  # noqa: SLF001
        if coordinator._pending_exception is not None:  # noqa: SLF001
            raise coordinator._pending_exception  # noqa: SLF001
        for task in (coordinator._coordination_task, consumer._fetcher._fetch_task):  # noqa: SLF001
            if task.done():
                raise task.exception() or ConsumerStoppedError()

    def close(self) -> None:
        """Nothing: the thread closes its consumer when it stops.

        Upstream is called where a rebalance ends while the worker stops. From another thread's loop it closes the
        connections that the consumer needs to leave its group, and whose fetches then ask for metadata without a pause.
        """

    async def answer(self) -> None:
        """Return once the thread has come to this: where nothing is fetched nothing else tells that it is stuck."""
        await self.call_thread(_nothing)

    def not_member(self) -> str:
        """Why this worker is no member of its group just now; empty where it is one."""
        if self._consumer is None:
            return "the consumer has not started"
        coordinator = self._consumer._coordinator  # noqa: SLF001
        if coordinator._pending_exception is not None:  # noqa: SLF001
            return repr(coordinator._pending_exception)  # noqa: SLF001
        if coordinator.coordinator_id is None:
            return "no broker answers for the group"
        if coordinator.generation <= 0:
            return "it has not joined yet, or has to join again"
        return ""

    def held(self) -> set[TP]:
        """The partitions assigned to this worker; none before it has started."""
        return set() if self._consumer is None else self.assignment()

    def end_of(self, tp: TP) -> int | None:
        """The offset behind the last record of an assigned partition, as the last fetch said."""
        consumer = self._consumer
        if consumer is None or not consumer._subscription.is_assigned(tp):  # noqa: SLF001
            return None
        end: int | None = consumer.highwater(tp)
        return end

    async def _fetch_records(
        self,
        consumer: AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109 -- upstream's signature
        max_records: int | None = None,
    ) -> RecordMap:
        before = _positions(consumer)
        most = None if max_records is None else max_records * self.stretch
        records = await super()._fetch_records(consumer, active_partitions, timeout, most)
        now = time.monotonic()
        if records:
            self._idle_from = now + _IDLE_S
        wait_ms = FETCH_WAIT_MS if now < self._idle_from else IDLE_FETCH_WAIT_MS
        consumer._fetcher._fetch_max_wait_ms = wait_ms  # noqa: SLF001
        return Fetched(records, before, _positions(consumer))

    def _create_worker_consumer(self, transport: driver.Transport) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS  # noqa: SLF001
        join_s = float(self.app.conf.broker_rebalance_timeout) + REQUEST_TIMEOUT_S
        # Faust's own lets one hung broker stop all.
        consumer._client = self.connection.client(metadata_age_s=METADATA_AGE_S, join_s=join_s)  # noqa: SLF001
        # A producer that uses transactions may take back what it wrote: that is no event. Faust would read it.
        consumer._isolation_level = "read_committed"  # noqa: SLF001
        return consumer


async def _nothing() -> None:
    """What the thread is asked to do, to see that it does."""


def _positions(consumer: AIOKafkaConsumer) -> dict[TP, int]:
    assignment = consumer._subscription.subscription.assignment  # noqa: SLF001
    if assignment is None:
        return {}
    states = ((tp, assignment.state_value(tp)) for tp in assignment.tps)
    return {TP(*tp): state.position for tp, state in states if state.has_valid_position}
