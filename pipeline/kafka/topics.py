"""Topics: which exist and how they are, and creating those that are missing.

Owns: the shape of created topics (size limits S5, retention), the check where creating is not allowed.
Must not know: who writes to them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code
from aiokafka.structs import TopicPartition

from catalog import OwnTopics
from pipeline.errors import MissingTopics
from pipeline.kafka.admin import admin_client
from pipeline.kafka.connection import Connection
from pipeline.kafka.producer import Producer
from pipeline.settings import Settings

__all__ = [
    "TopicKeeper",
    "TopicSpec",
    "TopicSpecs",
    "TopicState",
    "create",
    "delete_before",
    "describe",
    "missing",
    "partition_counts",
]

_FRAMING_ROOM = 8_192
"""CloudEvents headers of a definition may be larger than the staging headers they replace; plus batch overhead."""
_FORENSIC_ROOM = 65_536
_FOREVER = {"retention.ms": "-1"}
_SIZE = "max.message.bytes"


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it is to be created."""

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as it is: its partition count, and the largest record batch it takes, in bytes."""

    partitions: int
    max_message_bytes: int


class TopicSpecs:
    """The shape of each kind of topic under the given settings."""

    def __init__(self, settings: Settings) -> None:
        self._partitions = settings.topic_partitions
        self._record_bytes = settings.max_record_bytes + _FRAMING_ROOM

    def staging(self, name: str) -> TopicSpec:
        """The staging topic: the broker's retention, room for `MAX_RECORD_BYTES`."""
        return self.target(name)

    def target(self, name: str) -> TopicSpec:
        """A target: the broker's retention, room for a framed record of `MAX_RECORD_BYTES`."""
        return TopicSpec(name, self._partitions, {_SIZE: str(self._record_bytes)})

    def kept(self, name: str, partitions: int | None = None) -> TopicSpec:
        """A topic whose records stay until somebody deals with them (dead letters, audit): 64 KiB more room."""
        size = str(self._record_bytes + _FORENSIC_ROOM)
        return TopicSpec(name, partitions or self._partitions, {_SIZE: size, **_FOREVER})

    def compacted(self, name: str, partitions: int | None = None) -> TopicSpec:
        """A topic that keeps the last record of each key for ever."""
        kept = self.kept(name, partitions)
        return replace(kept, config={**kept.config, "cleanup.policy": "compact"})

    def dlq_index(self, own: OwnTopics) -> TopicSpec:
        """A record for each dead letter."""
        return self.compacted(own.dlq_index)

    def dlq_state(self, own: OwnTopics) -> TopicSpec:
        """What became of each dead letter (Q5)."""
        return self.compacted(own.dlq_state)

    def jobs(self, own: OwnTopics) -> TopicSpec:
        """Jobs, on one partition: all workers see the same order."""
        return self.compacted(own.jobs, 1)

    def cursors(self, name: str, partitions: int | None = None) -> TopicSpec:
        """How far what is parked was drained: compacted soon, for it is written often."""
        kept = self.compacted(name, partitions)
        return replace(kept, config={**kept.config, "segment.ms": "3600000"})


class TopicKeeper:
    """Answers how many partitions a topic has, and creates it on first need where that is allowed."""

    def __init__(self, producer: Producer, connection: Connection, settings: Settings) -> None:
        self._producer = producer
        self._connection = connection
        self._create = settings.topics_autocreate
        self._replication = settings.topic_replication

    async def partitions(self, spec: TopicSpec, *, timeout_s: float | None) -> int:
        """The partition count of the topic; waits for a broker for at most `timeout_s` (None: without limit).

        Raises `UnknownTopicOrPartitionError` where it is missing and must not be created, `MissingTopics`
        where the broker refuses to create it, `TimeoutError`, or another `KafkaError`.
        """
        async with asyncio.timeout(timeout_s):
            try:
                return await self._producer.partitions(spec.name)
            except UnknownTopicOrPartitionError:
                if not self._create:
                    raise
            await create(self._connection, [spec], self._replication)
            while True:  # a new topic takes a moment to reach every broker's metadata
                try:
                    return await self._producer.partitions(spec.name)
                except UnknownTopicOrPartitionError:
                    await asyncio.sleep(0.05)


async def missing(connection: Connection, names: Iterable[str]) -> list[str]:
    """Those of the topics that do not exist, sorted. Raises a `KafkaError` where no broker answers."""
    async with admin_client(connection) as admin:
        existing = set(await admin.list_topics())
    return sorted(set(names) - existing)


async def partition_counts(connection: Connection, names: Iterable[str]) -> dict[str, int]:
    """The partition counts of those of the topics that exist. Raises a `KafkaError` where no broker answers."""
    async with admin_client(connection) as admin:
        return await _counts(admin, names)


async def _counts(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, int]:
    wanted = set(names)
    # All topics are asked for: a broker may create one that is asked for by name.
    found = await admin.describe_topics()
    return {topic["topic"]: len(topic["partitions"]) for topic in found if topic["topic"] in wanted}


async def describe(connection: Connection, names: Iterable[str]) -> dict[str, TopicState]:
    """How those of the topics are that exist. Raises a `KafkaError` where no broker answers, or one refuses."""
    async with admin_client(connection) as admin:
        counts = await _counts(admin, names)
        asked = [ConfigResource(ConfigResourceType.TOPIC, name, {_SIZE: ""}) for name in sorted(counts)]
        answers = await admin.describe_configs(asked) if asked else []
    states = {}
    for code, message, _, name, entries in (resource for answer in answers for resource in answer.resources):
        if code:
            raise for_code(code)(f"topic {name}: {message}")
        states[name] = TopicState(counts[name], int(entries[0][1]))
    return states


async def delete_before(connection: Connection, topic: str, offsets: Mapping[int, int]) -> None:
    """Delete from partitions of a topic what stands before an offset (DeleteRecords).

    Raises a `KafkaError` where no broker answers, or one refuses.
    """
    places = {TopicPartition(topic, number): RecordsToDelete(offset) for number, offset in offsets.items()}
    async with admin_client(connection) as admin:
        await admin.delete_records(places)


async def create(connection: Connection, specs: Iterable[TopicSpec], replication: int) -> None:
    """Create topics; one that exists already is left as it is. `replication` 0: three, or all brokers if fewer.

    Raises `MissingTopics` naming each topic the broker refused to create, or a `KafkaError` where no broker
    answers.
    """
    async with admin_client(connection) as admin:
        if not replication:
            replication = min(3, len((await admin.describe_cluster())["brokers"]))
        wanted = [NewTopic(s.name, s.partitions, replication, topic_configs=dict(s.config)) for s in specs]
        response = await admin.create_topics(wanted)
    problems = [
        f"{topic}: the broker refused to create it ({for_code(code).__name__}: {message})"
        for topic, code, message in response.topic_errors
        if code not in (0, TopicAlreadyExistsError.errno)
    ]
    if problems:
        raise MissingTopics(problems)
