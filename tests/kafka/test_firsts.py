"""Where partitions begin."""

from __future__ import annotations

import pytest
from aiokafka.errors import KafkaConnectionError

from devtools.kafka import Brokers
from pipeline.kafka import firsts
from pipeline.kafka.connection import Connection
from pipeline.kafka.topics import delete_before
from tests.kafka_client import OutRecord, create_topic, partition_count, produce


@pytest.mark.kafka
@pytest.mark.parametrize("at_once", [1, 50])
async def test_partitions_begin_behind_what_was_deleted(
    kafka: Brokers, namespace: str, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """O1: each partition of each topic, however many are asked for at once; a topic that does not exist is left out,
    and not created."""
    monkeypatch.setattr(firsts, "_TOPICS", at_once)
    topics = [f"{namespace}.{name}" for name in ("one", "two", "absent")]
    connection = Connection((kafka.bootstrap,), "tests")
    for topic in topics[:2]:
        create_topic(kafka.bootstrap, topic, 2)
        produce(kafka.bootstrap, topic, [OutRecord(None, b"x", partition=n % 2) for n in range(20)])
    await delete_before(connection, topics[0], {1: 7})
    await delete_before(connection, topics[1], {0: 10})
    assert await firsts.first_offsets(connection, topics) == {
        (topics[0], 0): 0,
        (topics[0], 1): 7,
        (topics[1], 0): 10,
        (topics[1], 1): 0,
    }
    assert partition_count(kafka.bootstrap, topics[2]) == 0


@pytest.mark.kafka
async def test_what_a_leader_does_not_say_is_left_out(kafka: Brokers, namespace: str) -> None:
    """O1: a topic that was deleted after its leaders were asked for is left out, beside one that was not."""
    topic, absent = f"{namespace}.one", f"{namespace}.absent"
    create_topic(kafka.bootstrap, topic, 1)
    client = Connection((kafka.bootstrap,), "tests").client()
    await client.bootstrap()
    try:
        (broker,) = client.cluster.brokers()
        wanted = {absent: [(0, -2)], topic: [(0, -2), (7, -2)]}
        assert await firsts._ask(client, broker.nodeId, wanted) == {(topic, 0): 0}
    finally:
        await client.close()


async def test_without_a_broker_nothing_is_known() -> None:
    """O1: where no broker answers it raises, instead of telling that there is nothing."""
    with pytest.raises(KafkaConnectionError):
        await firsts.first_offsets(Connection(("127.0.0.1:1",), "tests"), ["t"])
