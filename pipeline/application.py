"""One worker: settings and catalog in, a Faust app that knows how to route out.

Owns: handing batches to delivery, letting a partition wait for what a batch of it needs first, telling parts what the
transport tells. Must not know: which agents and pages there are (they are registered on it), how the parts are wired.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from faust.types import TP

from catalog import Catalog, OwnTopics
from pipeline import audit
from pipeline.assembly import Given, Parts, assemble
from pipeline.breaker import BreakerPolicy
from pipeline.client.stager import load_catalog
from pipeline.clock import SYSTEM_CLOCK
from pipeline.errands import Errands
from pipeline.errors import SettingsError
from pipeline.kafka.cluster import Cluster
from pipeline.kafka.topics import TopicSpecs
from pipeline.metrics import Metrics
from pipeline.park import ParkedState
from pipeline.parking.breakers import Breakers, TargetState
from pipeline.partition import key_hash
from pipeline.redrive.service import Redrive
from pipeline.settings import Settings
from pipeline.ticket import Hold
from pipeline.transport.app import App, make_app
from pipeline.transport.progress import Batch
from pipeline.transport.tenant import Tenant

__all__ = ["Application", "build"]

_REFRESH_S = 60.0
_ROUTED_AT_ONCE = 500
"""Records planned in one turn of the event loop before others have theirs, some 4 ms; a longer batch has one alone."""


class Application(Tenant):
    """One worker. `app` is what Faust runs; `route` is what the routing agent calls."""

    def __init__(self, settings: Settings, catalog: Catalog) -> None:
        self.settings = settings
        self.catalog = catalog
        self.topics = OwnTopics(settings.namespace)
        self.specs = TopicSpecs(settings)
        policy = BreakerPolicy(settings.cb_failure_ratio, settings.cb_min_requests, settings.cb_timeout_s)
        self.breakers = Breakers(catalog.topics, policy, SYSTEM_CLOCK)
        """One for each target; an operator pauses, resumes and resets them here."""
        self.metrics = Metrics()
        self.app: App = make_app(settings)
        self.app.prepare = self._prepare
        self.app.tenant = self
        self.app.on_before_shutdown.connect(self._shut_down)
        self._clusters: list[Cluster] = []
        self._closing = contextlib.AsyncExitStack()
        self._parts: Parts | None = None
        self._refreshed = 0.0
        self._releasing: set[asyncio.Task[None]] = set()

    async def route(self, batches: Sequence[Batch]) -> None:
        """Deliver batches of staging records. Returns once they are under way; never waits for a broker."""
        self._refresh_partition_counts(self._prepared)
        routed = 0
        for batch in batches:
            if routed >= _ROUTED_AT_ONCE:
                await asyncio.sleep(0)  # the sender, the pages and the heartbeats want their turn
                routed = 0
            routed += len(batch.records)
            self._route(batch)

    def _route(self, batch: Batch) -> None:
        consumer, parts = self.app.batches, self._prepared
        if not consumer.begin(batch):
            return
        unknown = parts.parking.unknown(batch.partition)
        hold = Hold(unknown) if unknown else parts.delivery.deliver(batch, lambda: consumer.finish(batch))
        if hold is not None:
            tp = TP(batch.topic, batch.partition)
            consumer.hold(tp, hold.cause, batch)
            self._release_later(parts, tp, hold)

    # -- what pages and commands ask -------------------------------------------------------------

    @property
    def is_prepared(self) -> bool:
        """Whether the preparations are done: until then there is nothing to see but that the process lives."""
        return self._parts is not None

    @property
    def dead_letters(self) -> Redrive:
        """What there is to see and do about dead letters; there once the worker has prepared."""
        return self._prepared.dead_letters

    @property
    def errands(self) -> Errands:
        """What there is to see and do about what is parked; there as soon."""
        return self._prepared.errands

    def targets(self) -> list[TargetState]:
        """How each target of the catalog stands now. A snapshot."""
        standing = self.breakers.standing if self._parts is None else self._parts.parking.standing
        return [standing(target) for target in self.breakers]

    def parked(self) -> list[ParkedState]:
        """What is parked, by its name and staging partition, of the partitions this worker has. A snapshot."""
        return [] if self._parts is None else self._parts.parking.parked()

    async def audit(self, entry: audit.Entry) -> None:
        """Write an audit record (O3); returns once it is acknowledged, waits for a broker without limit.

        A change is audited before it is made: what cannot be audited is not done.
        """
        key, value, headers = audit.record_of(entry)
        own = self._prepared.own
        count = own.partitions.get(self.topics.staging)
        await own.write(self.specs.kept(self.topics.audit, count), key_hash(key), (key, value, headers))

    def trouble(self) -> str:
        """What keeps records from their topics just now, and which; empty where nothing does."""
        for cluster in self._clusters:
            for lane in cluster.producer.troubled_lanes():
                return f"{lane.topic} does not take records: {lane.trouble}"
            if cluster.producer.trouble is not None:
                return str(cluster.producer.trouble)
        return ""

    # -- what the transport tells ----------------------------------------------------------------

    def assigned(self, partitions: set[TP]) -> None:
        """Learn what is parked of these partitions."""
        self._prepared.parking.assigned({tp.partition for tp in partitions})

    def settling(self) -> None:
        """Drain nothing more."""
        if self._parts is not None:
            self._parts.parking.stop()

    async def settled(self) -> None:
        """Wait for what is drained right now."""
        if self._parts is not None:
            await self._parts.parking.settle()

    def let_go(self) -> None:
        """Forget the partitions."""
        if self._parts is not None:
            self._parts.parking.let_go()

    def abandoned(self, batches: Sequence[Batch]) -> None:
        """Take back what is not written yet."""
        self._prepared.delivery.abandon(batches)

    # -- starting and stopping -------------------------------------------------------------------

    async def _prepare(self) -> None:
        """Before Faust connects."""
        given = Given(self.settings, self.catalog, self.topics, self.specs, self.breakers, self.metrics)
        self._parts = await assemble(given, self._closing, self._clusters.append)

    async def _shut_down(self, *_: object, **__: object) -> None:
        """After the consumer has drained: what is not acknowledged now is not committed either."""
        await self._closing.aclose()

    @property
    def _prepared(self) -> Parts:
        assert self._parts is not None, "partitions are assigned, and pages asked, after the preparations"
        return self._parts

    # -- waiting ---------------------------------------------------------------------------------

    def _refresh_partition_counts(self, parts: Parts) -> None:
        now = SYSTEM_CLOCK.monotonic()
        if now - self._refreshed >= _REFRESH_S:
            self._refreshed = now
            parts.targets.know_existing(self.catalog.topics)

    def _release_later(self, parts: Parts, tp: TP, hold: Hold) -> None:
        """Let a partition go on once what it waits for is there: its topics known or given up, room to park."""
        if not hold.topics:
            parts.parking.when(tp.partition, lambda: self._release(tp, hold.cause))
            return
        waiting_for = set(hold.topics)

        def go_on(topic: str) -> None:
            waiting_for.discard(topic)
            if not waiting_for:
                self._release(tp, hold.cause)

        for topic in hold.topics:
            parts.metadata.need(topic, lambda topic=topic: go_on(topic))  # type: ignore[misc]

    def _release(self, tp: TP, cause: str) -> None:
        task = asyncio.create_task(self.app.batches.release(tp, cause))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)


def _says_more_than_missing(record: logging.LogRecord) -> bool:
    return "not found in cluster metadata" not in str(record.msg)


def build(settings: Settings) -> Application:
    """The worker for these settings. Raises `SettingsError` or `CatalogError`; does no I/O but reading the catalog."""
    if not settings.enabled:
        raise SettingsError(["STREAMING_ENABLED: is false, so there is nothing for a worker to do"])
    # aiokafka logs an error for each missing topic at each look, many times a second while one is being created.
    logging.getLogger("aiokafka.cluster").addFilter(_says_more_than_missing)
    return Application(settings, load_catalog(settings))
