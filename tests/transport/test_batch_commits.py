"""Commits through Faust on a real broker: never past what is unfinished, never less than what is finished (T5, T6)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NamedTuple

import pytest
from aiokafka.errors import CommitFailedError

from devtools.kafka import Brokers
from pipeline.record import RawHeaders
from pipeline.transport.progress import Batch
from tests.kafka_client import OutRecord, committed, create_topic, produce
from tests.transport.batch_app import BatchApp, running, until

pytestmark = pytest.mark.kafka


def records(count: int, partition: int = 0) -> list[OutRecord]:
    """Small records for one partition."""
    return [OutRecord(b"k", b"%d" % index, partition=partition) for index in range(count)]


class FakeRecord(NamedTuple):
    """A staging record of which only the offset matters."""

    offset: int
    key: bytes | None = None
    value: bytes | None = None
    headers: RawHeaders = ()
    timestamp: int = 0


class Worker(BatchApp):
    """Collects batches; the test finishes them."""

    def __init__(self, bootstrap: str, namespace: str, folder: Path, drain_timeout_s: float = 10.0) -> None:
        super().__init__(bootstrap, namespace, folder, self._keep, drain_timeout_s)
        self.bootstrap = bootstrap
        self.open: list[Batch] = []

    def _keep(self, batch: Batch) -> None:
        self.open.append(batch)

    async def committed(self) -> dict[int, int]:
        """What is committed, after a commit of what can be."""
        await self.app.batches.commit()
        await self.app.batches.commit()
        return await asyncio.to_thread(committed, self.bootstrap, self.own.group, self.own.staging)


async def test_commits_the_finished_prefix(kafka: Brokers, namespace: str, tmp_path: Path) -> None:
    """T6: whatever ends first, the committed offset never passes an unfinished record; neither in a fresh group,
    where Faust checks nothing, nor right after a commit, where its check is off by one."""
    create_topic(kafka.bootstrap, f"{namespace}.staging", 1)
    async with running(Worker(kafka.bootstrap, namespace, tmp_path)) as worker:
        for before in (0, 2_000, 4_000):
            produce(kafka.bootstrap, f"{namespace}.staging", records(min(2_000, 5_000 - before)))
            await until(lambda before=before: len(worker.offsets) == min(before + 2_000, 5_000))  # type: ignore[misc]
        first, *others = worker.open
        assert first.first_offset == 0
        assert len(others) >= 2
        for batch in reversed(others):
            worker.finish(batch)
        assert await worker.committed() == {}
        worker.finish(first)
        assert await worker.committed() == {0: 5_000}

        worker.open.clear()
        produce(kafka.bootstrap, f"{namespace}.staging", records(1))
        await until(lambda: len(worker.open) == 1)
        produce(kafka.bootstrap, f"{namespace}.staging", records(3))
        await until(lambda: worker.offsets[-1] == (0, 5_003))
        for batch in worker.open[1:]:
            worker.finish(batch)
        assert await worker.committed() == {0: 5_000}
        worker.finish(worker.open[0])
        assert await worker.committed() == {0: 5_004}


async def test_a_refused_commit_is_made_again(
    kafka: Brokers, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T6: what the broker refused to commit, as it does with a commit of an earlier generation, is committed with the
    next commit, also where nothing more comes; Faust takes it for committed."""
    create_topic(kafka.bootstrap, f"{namespace}.staging", 1)
    worker = Worker(kafka.bootstrap, namespace, tmp_path)
    worker.app.conf.broker_commit_interval = 3_600.0
    async with running(worker):
        consumer = worker.app.batches._thread._ensure_consumer()
        commit = consumer.commit
        refused: list[object] = []

        async def refuse_once(offsets: object) -> None:
            if not refused:
                refused.append(offsets)
                raise CommitFailedError("the group has already rebalanced")
            await commit(offsets)

        monkeypatch.setattr(consumer, "commit", refuse_once)
        produce(kafka.bootstrap, f"{namespace}.staging", records(5))
        await until(lambda: len(worker.offsets) == 5)
        for batch in worker.open:
            worker.finish(batch)
        await until(lambda: worker.app.batches.progress[worker.tp()].committable == 5)
        assert await worker.committed() == {0: 5}
        assert len(refused) == 1


async def test_a_rebalance_keeps_what_is_finished(kafka: Brokers, namespace: str, tmp_path: Path) -> None:
    """T5: when a second member joins, what the first has finished is committed before its partitions go, also
    what finished since the last commit; nothing comes twice, nothing is missing."""
    create_topic(kafka.bootstrap, f"{namespace}.staging", 6)
    for partition in range(6):
        produce(kafka.bootstrap, f"{namespace}.staging", records(700, partition))
    first = BatchApp(kafka.bootstrap, namespace, tmp_path / "first")
    first.app.conf.broker_commit_interval = 3_600.0
    second = BatchApp(kafka.bootstrap, namespace, tmp_path / "second")
    async with running(first):
        await until(lambda: len(first.offsets) == 4_200)
        async with running(second):
            await until(lambda: len(first.assigned) == len(second.assigned) == 3)
            for partition in range(6):
                produce(kafka.bootstrap, f"{namespace}.staging", records(10, partition))
            await until(lambda: len(first.offsets) + len(second.offsets) >= 4_260)
    together = first.offsets + second.offsets
    assert len(together) == len(set(together)) == 4_260


async def test_a_stop_lets_begun_batches_end(kafka: Brokers, namespace: str, tmp_path: Path) -> None:
    """T5: a clean stop waits for the work in hand and commits it; it begins nothing new meanwhile."""
    create_topic(kafka.bootstrap, f"{namespace}.staging", 1)
    produce(kafka.bootstrap, f"{namespace}.staging", records(600))
    worker = Worker(kafka.bootstrap, namespace, tmp_path)
    await worker.start()
    await until(lambda: len(worker.offsets) == 600)
    stopping = asyncio.create_task(worker.stop())
    await until(lambda: not worker.app.batches.flow_active)
    late = worker.app.batches.progress[worker.tp()].hand_out([FakeRecord(600)])
    assert late is not None
    assert not worker.app.batches.begin(late)  # as an agent would that took it from its queue just before
    for batch in worker.open:
        assert not stopping.done()
        worker.finish(batch)
    await asyncio.wait_for(stopping, 10)
    assert len(worker.offsets) == 600
    assert await asyncio.to_thread(committed, kafka.bootstrap, worker.own.group, worker.own.staging) == {
        0: 600
    }


async def test_a_stop_does_not_wait_forever(
    kafka: Brokers, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T5: what does not end within DRAIN_TIMEOUT_S is let go of, its writer is told, and it is not committed."""
    create_topic(kafka.bootstrap, f"{namespace}.staging", 1)
    produce(kafka.bootstrap, f"{namespace}.staging", records(4_800))
    worker = Worker(kafka.bootstrap, namespace, tmp_path, drain_timeout_s=0.3)
    abandoned: list[Batch] = []
    monkeypatch.setattr(worker.app.tenant, "abandoned", abandoned.extend)
    await worker.start()
    await until(lambda: len(worker.offsets) == 4_800)
    first, second, *_ = worker.open
    worker.finish(first)
    await asyncio.wait_for(worker.stop(), 10)
    assert abandoned == worker.open[1:]
    assert second.state == "dropped"
    now = await asyncio.to_thread(committed, kafka.bootstrap, worker.own.group, worker.own.staging)
    assert now == {0: first.next_offset}
