"""What a worker delivers with, put together: producers, own topics, dead letters, parking, delivery, errands.

Owns: the wiring, the order of starting. Must not know: Faust, pages, how any part works inside.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from catalog import Catalog, OwnTopics
from pipeline.clock import SYSTEM_CLOCK
from pipeline.delivery import Delivery
from pipeline.detour import Detour
from pipeline.errands import Errands
from pipeline.errors import UnknownTarget
from pipeline.ids import uuid7
from pipeline.kafka.cluster import Cluster
from pipeline.kafka.connection import Connection, staging_cluster, target_cluster
from pipeline.kafka.producer import ProducerOptions
from pipeline.kafka.reader import Reader
from pipeline.kafka.topics import TopicSpecs, delete_before
from pipeline.meter import Meter
from pipeline.metrics import Metrics
from pipeline.own_topics import check_topics, know_own_topics
from pipeline.parking.breakers import Breakers
from pipeline.parking.metadata import Metadata
from pipeline.parking.parking import Parking
from pipeline.plan import Limits
from pipeline.redrive.job import TargetOrder
from pipeline.redrive.service import Redrive
from pipeline.routes import Router
from pipeline.settings import Settings
from pipeline.tracing import delivery_spans

__all__ = ["Given", "Parts", "assemble"]

_READ_BYTES = 262_144


@dataclass(frozen=True, slots=True)
class Given:
    """What there is of a worker before it has reached a broker."""

    settings: Settings
    catalog: Catalog
    topics: OwnTopics
    specs: TopicSpecs
    breakers: Breakers
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Parts:
    """What a worker delivers with. `own`: the cluster of staging; `targets`: that of the targets, often the same."""

    own: Cluster
    targets: Cluster
    metadata: Metadata
    parking: Parking
    delivery: Delivery
    dead_letters: Redrive
    errands: Errands


async def assemble(
    given: Given, closing: contextlib.AsyncExitStack, started: Callable[[Cluster], None]
) -> Parts:
    """Start producers, create or check topics, and begin to look after dead letters and parked events.

    Waits for brokers without limit. `closing` is to be left after the consumer has drained, also where this raises;
    `started` is told of each cluster before it is waited for. Raises what a setting is to be changed for.
    """
    settings, topics, specs = given.settings, given.topics, given.specs

    async def cluster(connection: Connection) -> Cluster:
        options = ProducerOptions(
            settings.batch_linger_ms / 1000, settings.batch_max_bytes, settings.compression
        )
        made = await Cluster.start(connection, options, settings)
        closing.push_async_callback(made.close, 1.0)
        started(made)
        return made

    staging = staging_cluster(settings)
    own = await cluster(staging)
    targets = await cluster(target_cluster(settings)) if settings.targets_apart else own
    await own.producer.connected()
    if settings.targets_apart:
        await target_cluster(settings).check_trust()  # that cluster may be down, but not refuse us
    if not settings.topics_autocreate:
        await check_topics(settings, given.catalog, targets, specs)
    await know_own_topics(settings, given.catalog, own, specs)
    producer_id = f"{settings.client_id}/{uuid7()}"

    def order_target(order: TargetOrder) -> None:
        _order_target(given.breakers, order)

    dead_letters = Redrive(settings, staging, own, topics, SYSTEM_CLOCK, producer_id, order_target)
    closing.push_async_callback(dead_letters.close)
    await dead_letters.open()
    router = Router(
        given.catalog, dialect=settings.cloudevents_dialect, type_prefix=settings.effective_type_prefix
    )
    metadata = Metadata(targets, specs, given.breakers, settings.target_soft_timeout_s)
    meter = Meter(given.metrics, SYSTEM_CLOCK, delivery_spans())

    def open_reader() -> Reader:
        return Reader(staging, partition_bytes=_READ_BYTES)

    parking = Parking(
        settings,
        topics,
        specs,
        given.breakers,
        targets=targets,
        own=own,
        open_reader=open_reader,
        trim=lambda topic, offsets: delete_before(staging, topic, offsets),
        clock=SYSTEM_CLOCK,
        meter=meter,
    )
    delivery = Delivery(
        router,
        Limits(settings.max_payload_bytes, settings.max_record_bytes),
        targets=targets,
        own=own,
        topics=topics,
        specs=specs,
        parking=parking,
        clock=SYSTEM_CLOCK,
        producer_id=producer_id,
        meter=meter,
    )
    parks_unknown = settings.unknown_definition == "park"
    detour = Detour(delivery, parking, targets, metadata, router, parks_unknown=parks_unknown)
    parking.connect(detour)
    errands = Errands(dead_letters.log, parking, detour, topics, open_reader, producer_id)
    closing.push_async_callback(parking.close)
    closing.callback(metadata.close)
    closing.push_async_callback(errands.close)
    parking.start()
    errands.start()
    return Parts(own, targets, metadata, parking, delivery, dead_letters, errands)


def _order_target(breakers: Breakers, order: TargetOrder) -> None:
    """What an operator ordered for all workers; what he ordered for a target that is no more is nothing."""
    with contextlib.suppress(UnknownTarget):
        if order.want == "pause":
            breakers.pause(order.target, order.by, order.at)
        elif order.want == "resume":
            breakers.resume(order.target, order.by)
        else:
            breakers.reset(order.target, order.by)
