"""The worker, put together: settings and catalog in, a Faust app that knows how to route out.

Owns: wiring, the order of starting and stopping, letting a partition wait for what a batch of it needs first.
Must not know: which agents and pages there are (they are registered on it), how any part works inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from faust.types import TP

from catalog import Catalog, OwnTopics
from pipeline import audit
from pipeline.breaker import BreakerPolicy
from pipeline.client.stager import load_catalog
from pipeline.clock import SYSTEM_CLOCK
from pipeline.delivery import Delivery
from pipeline.detour import Detour
from pipeline.errands import Errands
from pipeline.errors import SettingsError, UnknownTarget
from pipeline.ids import uuid7
from pipeline.kafka.cluster import Cluster
from pipeline.kafka.connection import Connection, staging_cluster, target_cluster
from pipeline.kafka.producer import Producer, ProducerOptions
from pipeline.kafka.reader import Reader
from pipeline.kafka.topics import (
    TopicKeeper,
    TopicSpecs,
    delete_before,
)
from pipeline.meter import Meter
from pipeline.metrics import Metrics
from pipeline.own_topics import check_topics, know_own_topics
from pipeline.park import ParkedState
from pipeline.parking.breakers import Breakers, TargetState
from pipeline.parking.metadata import Metadata
from pipeline.parking.parking import Parking
from pipeline.partition import key_hash
from pipeline.plan import Limits
from pipeline.redrive.job import TargetOrder
from pipeline.redrive.service import Redrive
from pipeline.routes import Router
from pipeline.settings import Settings
from pipeline.ticket import Hold
from pipeline.tracing import delivery_spans
from pipeline.transport.app import App, make_app
from pipeline.transport.progress import Batch
from pipeline.transport.tenant import Tenant

__all__ = ["Application", "build"]

log = logging.getLogger(__name__)

_REFRESH_S = 60.0
_READ_BYTES = 262_144
_LEARNING = "learning what is parked"


class Application(Tenant):
    """The parts of one worker. `app` is what Faust runs; `route` is what the routing agent calls."""

    dead_letters: Redrive
    """What there is to see and do about dead letters; there once the worker has prepared."""
    errands: Errands
    """What there is to see and do about what is parked; there as soon."""

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
        self._parking: Parking | None = None
        self._refreshed = 0.0
        self._releasing: set[asyncio.Task[None]] = set()

    async def route(self, batch: Batch) -> None:
        """Deliver one batch of staging records. Returns once it is under way; never waits for a broker."""
        consumer = self.app.batches
        self._refresh_partition_counts()
        if not consumer.begin(batch):
            return
        if self._parked.knows(batch.partition):
            hold = self._delivery.deliver(batch, lambda: consumer.finish(batch))
        else:
            hold = Hold(_LEARNING)
        if hold is not None:
            tp = TP(batch.topic, batch.partition)
            consumer.hold(tp, hold.cause, batch)
            self._release_later(tp, hold)
        await asyncio.sleep(0)  # the sender, the pages and the heartbeats want their turn

    def targets(self) -> list[TargetState]:
        """How each target of the catalog stands now. A snapshot."""
        standing = self.breakers.standing if self._parking is None else self._parking.standing
        return [standing(target) for target in self.breakers]

    def parked(self) -> list[ParkedState]:
        """What is parked, by its name and staging partition, of the partitions this worker has. A snapshot."""
        return [] if self._parking is None else self._parking.parked()

    # -- what the transport tells ----------------------------------------------------------------

    def assigned(self, partitions: set[TP]) -> None:
        """Learn what is parked of these partitions."""
        self._parked.assigned({tp.partition for tp in partitions})

    def settling(self) -> None:
        """Drain nothing more."""
        if self._parking is not None:
            self._parking.stop()

    async def settled(self) -> None:
        """Wait for what is drained right now."""
        if self._parking is not None:
            await self._parking.settle()

    def let_go(self) -> None:
        """Forget the partitions."""
        if self._parking is not None:
            self._parking.let_go()

    def abandoned(self, batches: Sequence[Batch]) -> None:
        """Take back what is not written yet."""
        self._delivery.abandon(batches)

    # -- starting and stopping -------------------------------------------------------------------

    async def audit(self, entry: audit.Entry) -> None:
        """Write an audit record (O3); returns once it is acknowledged, waits for a broker without limit.

        A change is audited before it is made: what cannot be audited is not done.
        """
        key, value, headers = audit.record_of(entry)
        count = self._own.partitions.get(self.topics.staging)
        await self._own.write(self.specs.kept(self.topics.audit, count), key_hash(key), (key, value, headers))

    def trouble(self) -> str:
        """What keeps records from their topics just now, and which; empty where nothing does."""
        for cluster in self._clusters:
            for lane in cluster.producer.troubled_lanes():
                return f"{lane.topic} does not take records: {lane.trouble}"
            if cluster.producer.trouble is not None:
                return str(cluster.producer.trouble)
        return ""

    async def _prepare(self) -> None:
        """Before Faust connects: producers, own topics, and the check where topics must not be created."""
        settings = self.settings
        staging = staging_cluster(settings)
        options = ProducerOptions(
            settings.batch_linger_ms / 1000, settings.batch_max_bytes, settings.compression
        )
        self._own = await self._cluster(staging, options)
        self._targets = (
            await self._cluster(target_cluster(settings), options) if settings.targets_apart else self._own
        )
        await self._own.producer.connected()
        if settings.targets_apart:
            await target_cluster(settings).check_trust()  # that cluster may be down, but not refuse us
        if not settings.topics_autocreate:
            await check_topics(settings, self.catalog, self._targets, self.specs)
        await know_own_topics(settings, self.catalog, self._own, self.specs)
        producer_id = f"{settings.client_id}/{uuid7()}"
        self.dead_letters = Redrive(
            settings,
            staging,
            self._own,
            self.topics,
            SYSTEM_CLOCK,
            producer_id,
            self._order_target,
        )
        await self.dead_letters.open()
        router = Router(
            self.catalog, dialect=settings.cloudevents_dialect, type_prefix=settings.effective_type_prefix
        )
        self._metadata = Metadata(self._targets, self.specs, self.breakers, settings.target_soft_timeout_s)
        meter = Meter(self.metrics, SYSTEM_CLOCK, delivery_spans())

        def open_reader() -> Reader:
            return Reader(staging, partition_bytes=_READ_BYTES)

        parking = Parking(
            settings,
            self.topics,
            self.specs,
            self.breakers,
            targets=self._targets,
            own=self._own,
            open_reader=open_reader,
            trim=lambda topic, offsets: delete_before(staging, topic, offsets),
            clock=SYSTEM_CLOCK,
            meter=meter,
        )
        self._delivery = Delivery(
            router,
            Limits(settings.max_payload_bytes, settings.max_record_bytes),
            targets=self._targets,
            own=self._own,
            topics=self.topics,
            specs=self.specs,
            parking=parking,
            clock=SYSTEM_CLOCK,
            producer_id=producer_id,
            meter=meter,
        )
        detour = Detour(
            self._delivery,
            parking,
            self._targets,
            self._metadata,
            router,
            parks_unknown=settings.unknown_definition == "park",
        )
        parking.connect(detour)
        parking.start()
        self._parking = parking
        log_of_jobs = self.dead_letters.log
        self.errands = Errands(log_of_jobs, parking, detour, self.topics, open_reader, producer_id)
        self.errands.start()

    async def _cluster(self, connection: Connection, options: ProducerOptions) -> Cluster:
        producer = Producer(connection, options)
        await producer.start()
        cluster = Cluster(producer, TopicKeeper(producer, connection, self.settings))
        self._clusters.append(cluster)
        return cluster

    async def _shut_down(self, *_: object, **__: object) -> None:
        """After the consumer has drained: what is not acknowledged now is not committed either."""
        if hasattr(self, "errands"):
            await self.errands.close()
        if hasattr(self, "dead_letters"):
            await self.dead_letters.close()
        if self._parking is not None:
            self._metadata.close()
            await self._parking.close()
        for cluster in self._clusters:
            await cluster.close(1.0)

    # -- waiting ---------------------------------------------------------------------------------

    @property
    def is_prepared(self) -> bool:
        """Whether the preparations are done: until then there is nothing to see but that the process lives."""
        return hasattr(self, "errands")

    @property
    def _parked(self) -> Parking:
        assert self._parking is not None, "partitions are assigned after the preparations"
        return self._parking

    def _order_target(self, order: TargetOrder) -> None:
        """What an operator ordered for all workers; what he ordered for a target that is no more is nothing."""
        with contextlib.suppress(UnknownTarget):
            if order.want == "pause":
                self.breakers.pause(order.target, order.by)
            elif order.want == "resume":
                self.breakers.resume(order.target, order.by)
            else:
                self.breakers.reset(order.target, order.by)

    def _refresh_partition_counts(self) -> None:
        now = SYSTEM_CLOCK.monotonic()
        if now - self._refreshed >= _REFRESH_S:
            self._refreshed = now
            self._targets.know_existing(self.catalog.topics)

    def _release_later(self, tp: TP, hold: Hold) -> None:
        """Let a partition go on once what it waits for is there: its topics known or given up, room to park."""
        if not hold.topics:
            self._parked.when(tp.partition, lambda: self._release(tp, hold.cause))
            return
        waiting_for = set(hold.topics)

        def go_on(topic: str) -> None:
            waiting_for.discard(topic)
            if not waiting_for:
                self._release(tp, hold.cause)

        for topic in hold.topics:
            self._metadata.need(topic, lambda topic=topic: go_on(topic))  # type: ignore[misc]

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
