"""The topics of our own that a worker needs before it begins: made, counted, or missed by name.

Owns: which they are, that what must have staging's partition count has it. Must not know: what they are for.
"""

from __future__ import annotations

import asyncio
import logging

from catalog import Catalog, OwnTopics
from catalog.names import dlq_of
from pipeline.errors import MissingTopics
from pipeline.kafka.cluster import Cluster
from pipeline.kafka.connection import staging_cluster, target_cluster
from pipeline.kafka.topics import TopicSpec, TopicSpecs, missing, partition_counts
from pipeline.settings import Settings

__all__ = ["check_topics", "know_own_topics"]

log = logging.getLogger(__name__)


async def know_own_topics(settings: Settings, catalog: Catalog, own: Cluster, specs: TopicSpecs) -> None:
    """Learn the partition counts of our topics, creating where that is allowed; waits for a broker without limit.

    Raises `MissingTopics` where one cannot be used.
    """
    topics = OwnTopics(settings.namespace)
    count = await own.know(specs.staging(topics.staging))
    log.info("topics.staging topic=%s partitions=%d", topics.staging, count)
    for spec in (specs.kept(topics.parked, count), specs.cursors(topics.parked_cursors, count)):
        found = await own.know(spec)
        if found != count:
            what = f"{spec.name}: has {found} partitions, staging has {count}"
            raise MissingTopics([f"{what}: `faust -A pipeline topics check` says what to do"])
    for spec in (specs.kept(topics.audit, count), *_redrive(topics, specs)):
        await own.know(spec)
    # What is there from earlier runs takes dead letters at once, also while the targets' cluster is down (C3).
    own.partitions |= await partition_counts(staging_cluster(settings), _kept(topics, catalog))


async def check_topics(settings: Settings, catalog: Catalog, targets: Cluster, specs: TopicSpecs) -> None:
    """With `TOPICS_AUTOCREATE=false`: everything the worker may write to must be there, else `MissingTopics`.

    A targets' cluster that is down cannot be asked, and does not keep the worker from starting.
    """
    topics = OwnTopics(settings.namespace)
    redrive = [spec.name for spec in _redrive(topics, specs)]
    parked = [topics.parked, topics.parked_cursors]
    needed = [topics.staging, *parked, *redrive, *_kept(topics, catalog)]
    absent = await missing(staging_cluster(settings), needed)
    try:
        async with asyncio.timeout(settings.target_soft_timeout_s):
            await targets.producer.connected()
            absent += await missing(target_cluster(settings), catalog.topics)
    except TimeoutError:
        log.warning("topics.not_checked -- no broker of the targets' cluster answers")
    if absent:
        raise MissingTopics(
            [f"{name}: missing, create it or set STREAMING_TOPICS_AUTOCREATE=true" for name in absent]
        )


def _redrive(topics: OwnTopics, specs: TopicSpecs) -> list[TopicSpec]:
    return [specs.dlq_index(topics), specs.dlq_state(topics), specs.jobs(topics)]


def _kept(topics: OwnTopics, catalog: Catalog) -> list[str]:
    return [topics.staging_dlq, topics.audit, *map(dlq_of, catalog.topics)]
