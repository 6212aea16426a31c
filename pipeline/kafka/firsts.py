"""Where partitions begin: what retention, or somebody, has deleted of any topics lies before.

Owns: asking each leader, about many partitions at once. Must not know: what the records mean.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from aiokafka.errors import KafkaError
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest, OffsetResetStrategy

from pipeline.kafka.client import Client
from pipeline.kafka.connection import Connection
from pipeline.kafka.reader import Place

__all__ = ["first_offsets"]

log = logging.getLogger(__name__)

_TOPICS = 50
"""How many are asked for at once: an answer about hundreds, each with its partitions, would hold the event loop."""

ByLeader = dict[int, dict[str, list[tuple[int, int]]]]


async def first_offsets(connection: Connection, topics: Sequence[str]) -> dict[Place, int]:
    """The first offset of each partition of these topics, as its leader says it now.

    Left out is what nobody can tell: a topic that does not exist, which is not created by asking, or that we may not
    see; a partition without a leader, or whose leader does not answer. Raises a `KafkaError` where no broker answers.
    """
    found: dict[Place, int] = {}
    client = connection.client()
    try:
        await client.bootstrap()
        await client.reach()
        for at in range(0, len(topics), _TOPICS):
            for node, wanted in (await _by_leader(client, topics[at : at + _TOPICS])).items():
                try:
                    found |= await _ask(client, node, wanted)
                except KafkaError as error:  # the others' answers are as good without
                    log.warning("kafka.no_first_offsets broker=%s error=%r", node, error)
    finally:
        await client.close()
    return found


async def _by_leader(client: Client, topics: Sequence[str]) -> ByLeader:
    request = MetadataRequest(list(topics), allow_auto_topic_creation=False)
    answer = await client.send(client.get_random_node(), request)
    found: ByLeader = {}
    for _, topic, _, partitions in answer.topics:
        for _, partition, leader, *_ in partitions:
            if leader >= 0:
                wanted = found.setdefault(leader, {}).setdefault(topic, [])
                wanted.append((partition, OffsetResetStrategy.EARLIEST))
    return found


async def _ask(client: Client, node: int, wanted: dict[str, list[tuple[int, int]]]) -> dict[Place, int]:
    answer = await client.send(node, OffsetRequest(-1, 0, list(wanted.items())))
    return {
        Place(topic, partition): offset
        for topic, partitions in answer.topics
        for partition, code, _, offset in partitions
        if not code
    }
