"""The topics of one run, as a broker tells of them: which there are, and how far each has come.

Owns: one admin client and one consumer for asking. Must not know: what is in a record.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from catalog import OwnTopics
from catalog.names import DLQ_SUFFIX

__all__ = ["Offsets", "Topics"]

logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # that a topic is not there yet is no news here


class Offsets(NamedTuple):
    """How far a run is, in records."""

    staged: int
    delivered: int
    dead: int
    committed: int


class Topics:
    """Asks a broker about the topics of one namespace. Open it with `async with Topics.open(...)`."""

    def __init__(self, own: OwnTopics, admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer) -> None:
        self.own = own
        self._admin = admin
        self._consumer = consumer
        # Topics of ours where no event stays: they are neither staged nor ended.
        self._apart = set(own.all) - {own.staging, own.staging_dlq, own.audit}

    @classmethod
    @asynccontextmanager
    async def open(cls, servers: str, namespace: str) -> AsyncIterator[Self]:
        """Connect, and disconnect at the end of the block."""
        admin = AIOKafkaAdminClient(bootstrap_servers=servers)
        consumer = AIOKafkaConsumer(bootstrap_servers=servers)
        try:
            await admin.start()
            await consumer.start()
            yield cls(OwnTopics(namespace), admin, consumer)
        finally:
            await consumer.stop()
            await admin.close()

    async def ends(self) -> dict[TopicPartition, int]:
        """Return the end offset of every partition of the staging topic and of the topics where events end."""
        names = [name for name in await self._names() if name not in self._apart]
        described = await self._admin.describe_topics(names) if names else []
        partitions = [
            TopicPartition(topic["topic"], partition["partition"])
            for topic in described
            for partition in topic["partitions"]
        ]
        found: dict[TopicPartition, int] = await self._consumer.end_offsets(partitions) if partitions else {}
        return found

    async def offsets(self) -> Offsets:
        """Return how far the run is."""
        staged = delivered = dead = 0
        for partition, offset in (await self.ends()).items():
            if partition.topic == self.own.staging:
                staged += offset
            elif partition.topic.endswith(DLQ_SUFFIX):
                dead += offset
            elif partition.topic != self.own.audit:
                delivered += offset
        return Offsets(staged, delivered, dead, await self._committed())

    async def delete(self) -> None:
        """Delete every topic of the run, for brokers that go on."""
        names = await self._names()
        if names:
            await self._admin.delete_topics(names)

    async def _names(self) -> list[str]:
        prefix = self.own.namespace + "."
        return [name for name in await self._admin.list_topics() if name.startswith(prefix)]

    async def _committed(self) -> int:
        try:
            offsets = await self._admin.list_consumer_group_offsets(self.own.group)
        except KafkaError:  # the group is not there yet, or its coordinator is not
            return 0
        return sum(
            max(0, found.offset)
            for partition, found in offsets.items()
            if partition.topic == self.own.staging
        )
