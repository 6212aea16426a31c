"""Ordinary Faust beside the batches: agents of a user, tables, the group protocol."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from faust.types import TP, Message

from devtools.kafka import Brokers
from tests.kafka_client import OutRecord, committed, create_topic, produce
from tests.transport.batch_app import PARTITIONS, BatchApp, running, until

pytestmark = pytest.mark.kafka

COUNT = 600


class WithTable(BatchApp):
    """Beside the batch agent one that counts, in a table, the records of another topic, event by event."""

    def __init__(self, bootstrap: str, namespace: str, folder: Path) -> None:
        super().__init__(bootstrap, namespace, folder)
        self.orders = f"{namespace}.orders"
        self.headers: list[Any] = []
        self.taken: defaultdict[int, list[int]] = defaultdict(list)
        app = self.app
        self.table = app.Table(f"{namespace}-counts", default=int, partitions=PARTITIONS)

        orders = app.topic(
            self.orders, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
        )

        @app.agent(orders)
        async def count(stream: Any) -> None:
            async for event in stream.events():
                self.table[event.key.decode()] += 1
                self.taken[event.message.partition].append(event.message.offset)

    def taken_by_all(self, other: WithTable) -> list[tuple[int, int]]:
        """Partition and offset of what this one and the other have counted."""
        return [(p, o) for one in (self, other) for p, offsets in one.taken.items() for o in offsets]

    def make_seeks_slow(self) -> None:
        """Each seek to the committed offsets takes half a second longer."""
        consumer = self.app.batches
        seek = consumer.seek_to_committed

        async def slow() -> Mapping[TP, int]:
            offsets = await seek()
            await asyncio.sleep(0.5)
            return offsets

        consumer.seek_to_committed = slow  # type: ignore[method-assign]

    def make_commits_slow(self) -> None:
        """Each commit takes a third of a second longer."""
        consumer = self.app.batches
        commit = consumer._commit

        async def slow(offsets: Mapping[TP, int]) -> bool:
            await asyncio.sleep(0.3)
            return await commit(offsets)

        consumer._commit = slow  # type: ignore[method-assign]


def backlog(count: int = COUNT) -> list[OutRecord]:
    """Records for every partition, each keyed by its partition."""
    return [
        OutRecord(b"p%d" % partition, b"x", partition=partition)
        for _ in range(count)
        for partition in range(PARTITIONS)
    ]


def protocol(bootstrap: str, group: str) -> str:
    """The assignment protocol the group has agreed on."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    found = admin.describe_consumer_groups([group])[group].result(10)
    return str(found.partition_assignor)


async def one_round(worker: WithTable, bootstrap: str, first: int) -> None:
    """Run until the backlog from offset `first` on is done; then everything is counted and committed, once."""
    end = first + COUNT
    async with running(worker):
        await until(lambda: len(worker.offsets) == PARTITIONS * COUNT)
        await until(lambda: sum(map(len, worker.taken.values())) >= PARTITIONS * COUNT)
        assert {key: worker.table[key] for key in worker.table} == {f"p{p}": end for p in range(PARTITIONS)}
    for partition in range(PARTITIONS):
        assert worker.taken[partition] == list(range(first, end))
        assert [o for p, o in worker.offsets if p == partition] == list(range(first, end))
    for topic in (worker.own.staging, worker.orders):
        now = await asyncio.to_thread(committed, bootstrap, worker.own.group, topic)
        assert now == dict.fromkeys(range(PARTITIONS), end)


async def test_a_users_agent_and_table_run_beside_the_batches(
    kafka: Brokers, namespace: str, tmp_path: Path
) -> None:
    """A user's ordinary agent with a Faust table works beside the batches, through a restart that recovers the
    table while both topics have a backlog: nothing is missing, and what was committed does not come again.

    Faust resumes partitions, seeks, and clears queues with the flow on; the seek is made slow here, as with a slow
    broker, so that what is fetched in between would vanish.
    """
    topics = f"{namespace}.staging", f"{namespace}.orders"
    for topic in topics:
        create_topic(kafka.bootstrap, topic, PARTITIONS)
    for first in (0, COUNT):
        for topic in topics:
            produce(kafka.bootstrap, topic, backlog())
        worker = WithTable(kafka.bootstrap, namespace, tmp_path)
        worker.make_seeks_slow()
        await one_round(worker, kafka.bootstrap, first)


async def test_a_rebalance_amid_a_list_of_a_users_topic(
    kafka: Brokers, namespace: str, tmp_path: Path
) -> None:
    """A user's agent loses nothing when a second member joins while a fetched list is handed out event by event; what
    it finished since the last commit is committed, so that no more than what is in hand comes twice. While that commit
    is under way, slow here, nothing is handed out."""
    for topic in (f"{namespace}.staging", f"{namespace}.orders"):
        create_topic(kafka.bootstrap, topic, PARTITIONS)
    first = WithTable(kafka.bootstrap, namespace, tmp_path / "first")
    first.app.conf.broker_commit_interval = 3_600.0
    second = WithTable(kafka.bootstrap, namespace, tmp_path / "second")
    async with running(first):
        consumer = first.app.batches
        hand_out = consumer.callback

        async def slowly(message: Message) -> None:
            await asyncio.sleep(0.002)
            await hand_out(message)

        consumer.callback = slowly
        first.make_commits_slow()
        produce(kafka.bootstrap, first.orders, backlog(200))
        await until(lambda: sum(map(len, first.taken.values())) > 100)
        async with running(second):
            assert sum(map(len, first.taken.values())) < PARTITIONS * 200  # it did come amid the list
            await until(lambda: len(set(first.taken_by_all(second))) == PARTITIONS * 200)
    assert len(first.taken_by_all(second)) <= PARTITIONS * 200 + 4


async def test_the_group_protocol_needs_no_table(kafka: Brokers, namespace: str, tmp_path: Path) -> None:
    """The group speaks `faust` from the first release on: adding the first table later must not split it."""
    create_topic(kafka.bootstrap, f"{namespace}.staging", 1)
    async with running(BatchApp(kafka.bootstrap, namespace, tmp_path)) as worker:
        assert await asyncio.to_thread(protocol, kafka.bootstrap, worker.own.group) == "faust"
