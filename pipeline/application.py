"""The worker, put together: settings and catalog in, a Faust app that knows how to route out.

Owns: wiring, the order of starting and stopping, letting a partition wait while a target topic is not known.
Must not know: which agents and pages there are (they are registered on it), how any part works inside.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from faust.types import TP

from catalog import Catalog, OwnTopics
from catalog.names import dlq_of
from pipeline import audit
from pipeline.breaker import BreakerPolicy
from pipeline.client.stager import load_catalog
from pipeline.clock import SYSTEM_CLOCK
from pipeline.delivery import Delivery
from pipeline.errors import MissingTopics, SettingsError
from pipeline.ids import uuid7
from pipeline.kafka.cluster import Cluster
from pipeline.kafka.connection import Connection, staging_cluster, target_cluster
from pipeline.kafka.producer import Producer, ProducerOptions
from pipeline.kafka.topics import TopicKeeper, TopicSpec, TopicSpecs, missing, partition_counts
from pipeline.meter import Meter
from pipeline.metrics import Metrics
from pipeline.park import ParkedState
from pipeline.parking.breakers import Breakers, TargetState
from pipeline.partition import key_hash
from pipeline.plan import Limits
from pipeline.redrive.service import Redrive
from pipeline.routes import Router
from pipeline.settings import Settings
from pipeline.transport.app import App, make_app
from pipeline.transport.progress import Batch

__all__ = ["Application", "build"]

log = logging.getLogger(__name__)

_REFRESH_S = 60.0


class Application:
    """The parts of one worker. `app` is what Faust runs; `route` is what the routing agent calls."""

    dead_letters: Redrive
    """What there is to see and do about dead letters; there once the worker has prepared."""

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
        self.app.on_abandoned = self._abandoned
        self.app.on_before_shutdown.connect(self._shut_down)
        self._clusters: list[Cluster] = []
        self._refreshed = 0.0
        self._releasing: set[asyncio.Task[None]] = set()

    async def route(self, batch: Batch) -> None:
        """Deliver one batch of staging records. Returns once it is under way; never waits for a broker."""
        consumer = self.app.batches
        self._refresh_partition_counts()
        if not consumer.begin(batch):
            return
        unknown = self._delivery.deliver(batch, lambda: consumer.finish(batch))
        if unknown:
            tp = TP(batch.topic, batch.partition)
            cause = f"target topic not known yet: {', '.join(sorted(unknown))}"
            consumer.hold(tp, cause, batch)
            self._release_when_known(tp, cause, unknown)
        await asyncio.sleep(0)  # the sender, the pages and the heartbeats want their turn

    def targets(self) -> list[TargetState]:
        """How each target of the catalog stands now. A snapshot."""
        return [self.breakers.standing(target) for target in self.breakers]

    def parked(self) -> list[ParkedState]:
        """What is parked, by its name and staging partition, of the partitions this worker has. A snapshot."""
        return []

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
        options = ProducerOptions(
            settings.batch_linger_ms / 1000, settings.batch_max_bytes, settings.compression
        )
        self._own = await self._cluster(staging_cluster(settings), options)
        self._targets = (
            await self._cluster(target_cluster(settings), options) if settings.targets_apart else self._own
        )
        await self._own.producer.connected()
        if not settings.topics_autocreate:
            await self._targets.producer.connected()
            await self._check_topics()
        count = await self._own.know(self.specs.staging(self.topics.staging))
        # What is there from earlier runs takes dead letters at once, also while the targets' cluster is down (C3).
        self._own.partitions |= await partition_counts(staging_cluster(settings), self._kept_topics())
        log.info("staging topic %s has %s partitions", self.topics.staging, count)
        for spec in self._redrive_topics():
            await self._own.know(spec)
        self.dead_letters = Redrive(settings, staging_cluster(settings), self.topics, SYSTEM_CLOCK)
        await self.dead_letters.start()
        router = Router(
            self.catalog, dialect=settings.cloudevents_dialect, type_prefix=settings.effective_type_prefix
        )
        self._delivery = Delivery(
            router,
            Limits(settings.max_payload_bytes, settings.max_record_bytes),
            targets=self._targets,
            own=self._own,
            topics=self.topics,
            specs=self.specs,
            clock=SYSTEM_CLOCK,
            producer_id=f"{settings.client_id}/{uuid7()}",
            meter=Meter(self.metrics, SYSTEM_CLOCK),
        )

    async def _cluster(self, connection: Connection, options: ProducerOptions) -> Cluster:
        producer = Producer(connection, options)
        await producer.start()
        cluster = Cluster(producer, TopicKeeper(producer, connection, self.settings))
        self._clusters.append(cluster)
        return cluster

    async def _check_topics(self) -> None:
        """With `TOPICS_AUTOCREATE=false`: everything the worker may write to must be there."""
        redrive = [spec.name for spec in self._redrive_topics()]
        own = [self.topics.staging, *redrive, *self._kept_topics()]
        absent = await missing(staging_cluster(self.settings), own)
        absent += await missing(target_cluster(self.settings), self.catalog.topics)
        if absent:
            raise MissingTopics(
                [f"{name}: missing, create it or set STREAMING_TOPICS_AUTOCREATE=true" for name in absent]
            )

    def _redrive_topics(self) -> list[TopicSpec]:
        specs, own = self.specs, self.topics
        return [specs.dlq_index(own), specs.dlq_state(own), specs.jobs(own)]

    def _kept_topics(self) -> list[str]:
        return [self.topics.staging_dlq, self.topics.audit, *map(dlq_of, self.catalog.topics)]

    def _refresh_partition_counts(self) -> None:
        now = SYSTEM_CLOCK.monotonic()
        if now - self._refreshed >= _REFRESH_S:
            self._refreshed = now
            self._targets.know_existing(self.catalog.topics)

    def _release_when_known(self, tp: TP, cause: str, unknown: set[str]) -> None:
        waiting_for = set(unknown)

        def known(topic: str) -> None:
            waiting_for.discard(topic)
            if not waiting_for:
                task = asyncio.create_task(self.app.batches.release(tp, cause))
                self._releasing.add(task)
                task.add_done_callback(self._releasing.discard)

        for topic in unknown:
            self._targets.learn(self.specs.target(topic), lambda topic=topic: known(topic))  # type: ignore[misc]

    def _abandoned(self, batches: Sequence[Batch]) -> None:
        self._delivery.abandon(batches)

    async def _shut_down(self, *_: object, **__: object) -> None:
        """After the consumer has drained: what is not acknowledged now is not committed either."""
        if hasattr(self, "dead_letters"):
            await self.dead_letters.close()
        for cluster in self._clusters:
            await cluster.close(1.0)


def _says_more_than_missing(record: logging.LogRecord) -> bool:
    return "not found in cluster metadata" not in str(record.msg)


def build(settings: Settings) -> Application:
    """The worker for these settings. Raises `SettingsError` or `CatalogError`; does no I/O but reading the catalog."""
    if not settings.enabled:
        raise SettingsError(["STREAMING_ENABLED: is false, so there is nothing for a worker to do"])
    # aiokafka logs an error for each missing topic at each look, many times a second while one is being created.
    logging.getLogger("aiokafka.cluster").addFilter(_says_more_than_missing)
    return Application(settings, load_catalog(settings))
