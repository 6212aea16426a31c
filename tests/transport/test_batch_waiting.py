"""Partitions that wait, on a real broker: nothing of theirs is lost, doubled or out of order (T5, T6)."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from pathlib import Path

import pytest
from confluent_kafka import Producer

from devtools.kafka import Brokers
from pipeline.transport import consumer as consumer_module
from pipeline.transport.progress import Batch
from tests.kafka_client import OutRecord, committed, create_topic, produce
from tests.transport.batch_app import PARTITIONS, BatchApp, Records, running, until

pytestmark = pytest.mark.kafka


def spread(count: int, first: int = 0) -> list[OutRecord]:
    """Records over all partitions in turn, numbered per partition."""
    return [
        OutRecord(b"k", b"%d" % index, partition=partition)
        for index in range(first, first + count)
        for partition in range(PARTITIONS)
    ]


class Restless(BatchApp):
    """Ends batches a little later, in any order; now and then gives one back and waits with it."""

    def __init__(self, bootstrap: str, namespace: str, folder: Path, seed: int) -> None:
        super().__init__(bootstrap, namespace, folder, self._work)
        self.random = random.Random(seed)
        self.holds = 0
        self.releasing: set[asyncio.Task[None]] = set()

    def _work(self, batch: Batch) -> None:
        loop = asyncio.get_running_loop()
        if self.random.random() < 0.05:
            del self.offsets[-len(batch.records) :]
            self.hold(batch.partition, batch)
        else:
            loop.call_later(self.random.choice((0, 0, 0.001, 0.01, 0.05)), self.finish, batch)

    def hold(self, partition: int, batch: Batch | None = None) -> None:
        """Let a partition wait, and let it go on at once or a little later."""
        self.holds += 1
        cause = f"hold {self.holds}"
        self.app.batches.hold(self.tp(partition), cause, batch)
        task = asyncio.create_task(self._release(partition, cause, self.random.choice((0, 0, 0.002, 0.02))))
        self.releasing.add(task)
        task.add_done_callback(self.releasing.discard)

    async def _release(self, partition: int, cause: str, after_s: float) -> None:
        if after_s:
            await asyncio.sleep(after_s)
        await self.app.batches.release(self.tp(partition), cause)


async def pause_and_resume(bootstrap: str, namespace: str, folder: Path, cycles: int, per_cycle: int) -> None:
    """So many holds at random moments while records keep coming; then everything must have been seen once."""
    create_topic(bootstrap, f"{namespace}.staging", PARTITIONS)
    worker = Restless(bootstrap, namespace, folder, seed=cycles)
    staged = 0
    async with running(worker):
        while worker.holds < cycles:
            await asyncio.to_thread(
                produce, bootstrap, f"{namespace}.staging", spread(per_cycle * 20, staged)
            )
            staged += per_cycle * 20
            for _ in range(20):
                worker.hold(worker.random.randrange(PARTITIONS))
                await asyncio.sleep(worker.random.choice((0, 0.001, 0.005)))
        await until(lambda: not worker.releasing)
        await until(lambda: len(worker.offsets) >= staged * PARTITIONS)
        await until(lambda: not any(p.begun for p in worker.app.batches.progress.values()))
        await worker.app.batches.commit()
        await worker.app.batches.commit()
    seen = defaultdict(list)
    for partition, offset in worker.offsets:
        seen[partition].append(offset)
    for partition in range(PARTITIONS):
        assert seen[partition] == list(range(staged)), f"partition {partition}"
    now = await asyncio.to_thread(committed, bootstrap, worker.own.group, worker.own.staging)
    assert now == dict.fromkeys(range(PARTITIONS), staged)


async def test_pausing_and_resuming_loses_nothing(kafka: Brokers, namespace: str, tmp_path: Path) -> None:
    """T5, T6: 200 waits at random moments under load: every record is begun once, in order, and committed."""
    await pause_and_resume(kafka.bootstrap, namespace, tmp_path, cycles=200, per_cycle=12)


@pytest.mark.long
async def test_pausing_and_resuming_loses_nothing_for_long(
    kafka: Brokers, namespace: str, tmp_path: Path
) -> None:
    """T5, T6: the same with 1,000 waits and 120,000 records."""
    await pause_and_resume(kafka.bootstrap, namespace, tmp_path, cycles=1_000, per_cycle=20)


async def test_a_list_that_was_dropped_is_read_again(kafka: Brokers, namespace: str, tmp_path: Path) -> None:
    """T6: a fetched list that vanishes anywhere on its way is noticed by the next one, read again, and counted."""
    create_topic(kafka.bootstrap, f"{namespace}.staging", 1)
    worker = BatchApp(kafka.bootstrap, namespace, tmp_path)
    ten = [OutRecord(b"k", b"x")] * 10
    dropped: list[object] = []

    async def drop_one(records: Records) -> Records:
        if records and not dropped:
            dropped.extend(records)
            return {}
        return records

    async with running(worker):
        produce(kafka.bootstrap, worker.own.staging, ten)
        await until(lambda: len(worker.offsets) == 10)
        await worker.next_fetch(drop_one)
        produce(kafka.bootstrap, worker.own.staging, ten)
        await until(lambda: bool(dropped))
        produce(kafka.bootstrap, worker.own.staging, ten)
        await until(lambda: len(worker.offsets) >= 30)
        assert worker.app.batches.jumps == 1
    assert worker.offsets == [(0, offset) for offset in range(30)]


async def test_a_list_that_was_under_way_during_a_wait_is_read_again(
    kafka: Brokers, namespace: str, tmp_path: Path
) -> None:
    """T5, T6: a list that was fetched before the partition waited, and arrives after it went on, jumps over what was
    given back: that is no gap of the log."""
    create_topic(kafka.bootstrap, f"{namespace}.staging", 1)
    ten = [OutRecord(b"k", b"x")] * 10
    kept: list[Batch] = []
    under_way, go_on = asyncio.Event(), asyncio.Event()

    def keep_the_first(batch: Batch) -> None:
        if kept:
            worker.finish(batch)
        else:
            kept.append(batch)

    async def delay(records: Records) -> Records:
        if records:
            under_way.set()
            await go_on.wait()
        return records

    worker = BatchApp(kafka.bootstrap, namespace, tmp_path, keep_the_first)
    async with running(worker):
        produce(kafka.bootstrap, worker.own.staging, ten)
        await until(lambda: len(worker.offsets) == 10)
        await worker.next_fetch(delay)
        produce(kafka.bootstrap, worker.own.staging, ten)
        await under_way.wait()
        worker.offsets.clear()
        worker.app.batches.hold(worker.tp(), "a target is not known", kept[0])
        await worker.app.batches.release(worker.tp(), "a target is not known")
        go_on.set()
        await until(lambda: (0, 19) in worker.offsets)
    assert worker.offsets == [(0, offset) for offset in range(20)]


async def test_markers_of_transactions_are_no_jumps(
    kafka: Brokers, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S10: a transactional producer's markers leave offsets without records, which are neither read again nor taken
    for a loss; what a transaction took back is not seen."""
    topic = f"{namespace}.staging"
    create_topic(kafka.bootstrap, topic, 1)
    worker = BatchApp(kafka.bootstrap, namespace, tmp_path)
    monkeypatch.setattr(consumer_module, "_STRETCH", 1)
    worker.app.conf.broker_max_poll_records = 1  # so that lists end and begin everywhere, at markers too

    def write() -> None:
        producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": namespace})
        producer.init_transactions(30)
        for number in range(30):
            producer.begin_transaction()
            producer.produce(topic, b"%d" % number)
            producer.flush()
            if number == 10:
                producer.abort_transaction()
            else:
                producer.commit_transaction()

    async with running(worker):
        await asyncio.to_thread(write)
        await until(lambda: len(worker.records) == 29)
        assert [record.value for record in worker.records] == [b"%d" % n for n in range(30) if n != 10]
        assert (
            worker.app.batches.jumps <= 1
        )  # nothing follows what was taken back, so it may be read once more
        await worker.app.batches.commit_now()
        now = await asyncio.to_thread(committed, kafka.bootstrap, worker.own.group, topic)
        assert now[0] in (59, 60)  # the last marker is passed with the next record


async def test_a_worker_whose_partitions_all_wait_stays_in_its_group(
    kafka: Brokers, namespace: str, tmp_path: Path
) -> None:
    """T5: waiting is not hanging: however long all partitions wait, the worker keeps them and goes on afterwards."""
    create_topic(kafka.bootstrap, f"{namespace}.staging", 2)
    worker = BatchApp(kafka.bootstrap, namespace, tmp_path)
    worker.app.conf.broker_max_poll_interval = 1.0
    worker.app.conf.broker_heartbeat_interval = 0.3
    async with running(worker):
        produce(kafka.bootstrap, worker.own.staging, [OutRecord(b"k", b"x", partition=p) for p in (0, 1)])
        await until(lambda: len(worker.offsets) == 2)
        before = worker.app.consumer_generation_id
        for partition in (0, 1):
            worker.app.batches.hold(worker.tp(partition), "an operator")
        produce(kafka.bootstrap, worker.own.staging, [OutRecord(b"k", b"x", partition=p) for p in (0, 1)])
        await asyncio.sleep(3.0)  # three times the interval after which aiokafka gives the partitions up
        assert len(worker.offsets) == 2
        for partition in (0, 1):
            await worker.app.batches.release(worker.tp(partition), "another cause")
            assert worker.app.batches.progress[worker.tp(partition)].cause == "an operator"
            await worker.app.batches.release(worker.tp(partition), "an operator")
        await until(lambda: len(worker.offsets) == 4)
        assert worker.app.consumer_generation_id == before


async def test_a_partition_that_stands_still_keeps_no_other_waiting(
    kafka: Brokers, namespace: str, tmp_path: Path
) -> None:
    """T5: a partition whose batches do not end fills its window and is fetched no more; the others go on, and it
    does too once its batches end."""
    create_topic(kafka.bootstrap, f"{namespace}.staging", 2)
    stuck: list[Batch] = []

    def on_batch(batch: Batch) -> None:
        if batch.partition == 0 and not freed:
            stuck.append(batch)
        else:
            worker.finish(batch)

    freed = False
    worker = BatchApp(kafka.bootstrap, namespace, tmp_path, on_batch)
    records = [OutRecord(b"k", b"x", partition=index % 2) for index in range(40_000)]
    async with running(worker):
        produce(kafka.bootstrap, worker.own.staging, records)
        await until(lambda: sum(partition == 1 for partition, _ in worker.offsets) == 20_000)
        await until(lambda: sum(len(batch.records) for batch in stuck) >= 6_000)
        assert sum(len(batch.records) for batch in stuck) < 12_500
        freed = True
        for batch in stuck:
            worker.finish(batch)
        await until(lambda: len(worker.offsets) == 40_000)
    assert [o for o in worker.offsets if o[0] == 0] == [(0, offset) for offset in range(20_000)]


async def test_lists_of_a_backlog_are_long_while_memory_is_mostly_free(
    kafka: Brokers, namespace: str, tmp_path: Path
) -> None:
    """T5: of a backlog up to 6,000 records come at once, so that events for many topics share batches."""
    create_topic(kafka.bootstrap, f"{namespace}.staging", 1)
    lengths: list[int] = []

    def on_batch(batch: Batch) -> None:
        lengths.append(len(batch.records))
        worker.finish(batch)

    worker = BatchApp(kafka.bootstrap, namespace, tmp_path, on_batch)
    produce(kafka.bootstrap, worker.own.staging, [OutRecord(b"k", b"x")] * 12_000)
    async with running(worker):
        await until(lambda: len(worker.offsets) == 12_000)
    assert 2_000 < max(lengths) <= 6_000


async def test_headers_and_tombstones_arrive_as_they_are(
    kafka: Brokers, namespace: str, tmp_path: Path
) -> None:
    """T2, S10: repeated headers stay repeated, in order; a record without key or value has none."""
    create_topic(kafka.bootstrap, f"{namespace}.staging", 1)
    headers = [("a", b"1"), ("b", b"2"), ("a", b"3"), ("a", b"")]
    worker = BatchApp(kafka.bootstrap, namespace, tmp_path)
    async with running(worker):
        produce(kafka.bootstrap, worker.own.staging, [OutRecord(None, None, headers), OutRecord(b"", b"")])
        await until(lambda: len(worker.records) == 2)
    first, second = worker.records
    assert (first.key, first.value, list(first.headers)) == (None, None, headers)
    assert (second.key, second.value, list(second.headers)) == (b"", b"", [])


async def test_a_lone_record_is_handed_out_at_once(kafka: Brokers, namespace: str, tmp_path: Path) -> None:
    """O4: with nothing to do the worker waits in a fetch that the next record ends: milliseconds, not polls."""
    create_topic(kafka.bootstrap, f"{namespace}.staging", PARTITIONS)
    worker = BatchApp(kafka.bootstrap, namespace, tmp_path)
    loop = asyncio.get_running_loop()
    took: list[float] = []
    async with running(worker):
        for count in range(1, 8):
            await asyncio.sleep(0.03 * (count % 3))
            await asyncio.to_thread(
                produce, kafka.bootstrap, worker.own.staging, [OutRecord(b"%d" % count, b"x")]
            )
            acked = loop.time()
            await until(lambda count=count: len(worker.offsets) == count)  # type: ignore[misc]
            took.append(loop.time() - acked)
    assert sorted(took)[len(took) // 2] < 0.05, took
