"""The ways without Faust, what all ways share, and the process in which one way runs.

`python -m benchmarks.contenders WAY --brokers HOST:PORT --staging TOPIC --events N` moves N staged records to
the targets and prints one JSON object. Must not know how often it is run, nor how results are verified.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import gc
import importlib
import json
import logging
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

import aiokafka
import uvloop
from aiokafka.codec import lz4_encode

from benchmarks.load import frame, frame_in_full
from benchmarks.packing import Pack, Packed, framed, pack_copied

BATCH_BYTES = 1_048_576
IN_FLIGHT = 4
LINGER_MS = 5

Run = Callable[["Job"], Coroutine[object, object, None]]
Pending = deque[tuple[aiokafka.TopicPartition, int, asyncio.Future[list[object]]]]


@dataclass(slots=True)
class Meter:
    """CPU (all threads, user and system) and wall seconds between assignment and last delivery."""

    started: tuple[float, float] = (0.0, 0.0)
    finished: tuple[float, float] = (0.0, 0.0)

    def start(self) -> None:
        """Partitions are assigned and nothing is fetched or parsed yet: from here on it is work."""
        self.started = (time.process_time(), time.perf_counter())

    def finish(self) -> None:
        """The last record is acknowledged by its target."""
        self.finished = (time.process_time(), time.perf_counter())


@dataclass(frozen=True, slots=True)
class Job:
    """One run of one way."""

    brokers: str
    staging: str
    events: int
    compression: str | None
    group: str = field(default_factory=lambda: f"bench-{uuid.uuid4().hex}")
    meter: Meter = field(default_factory=Meter)


async def submit(producer: aiokafka.AIOKafkaProducer, packed: Packed) -> asyncio.Future[list[object]]:
    """Queue batches, in order for each partition; the result is done when all are delivered."""
    sent = [
        await producer.send_batch(builder, topic, partition=partition)
        for (topic, partition), builder in packed
    ]
    return asyncio.gather(*sent)


def producer_options(job: Job) -> dict[str, object]:
    """The producer every way uses."""
    return {
        "acks": "all",
        "enable_idempotence": True,
        "compression_type": job.compression,
        "max_batch_size": BATCH_BYTES,
        "linger_ms": LINGER_MS,
        "request_timeout_ms": 20_000,
    }


async def _clients(job: Job) -> tuple[aiokafka.AIOKafkaConsumer, aiokafka.AIOKafkaProducer]:
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=job.brokers, **producer_options(job))
    await producer.start()
    consumer = aiokafka.AIOKafkaConsumer(
        job.staging,
        bootstrap_servers=job.brokers,
        group_id=job.group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    return consumer, producer


async def getmany_batches(job: Job, pack: Pack) -> None:
    """Each fetched list sent as batches, `IN_FLIGHT` lists awaiting delivery, a commit every second."""
    consumer, producer = await _clients(job)
    job.meter.start()
    pending: Pending = deque()
    delivered: dict[aiokafka.TopicPartition, int] = {}
    seen, committed_at = 0, time.monotonic()
    while seen < job.events or pending:
        fetched = await consumer.getmany(timeout_ms=1_000) if seen < job.events else {}
        for partition, records in fetched.items():
            seen += len(records)
            sent = await submit(producer, pack(producer, records))
            pending.append((partition, records[-1].offset + 1, sent))
            while len(pending) >= IN_FLIGHT:
                await _settle(pending, delivered)
        if not fetched:
            await _settle(pending, delivered)
        if time.monotonic() - committed_at > 1:
            await consumer.commit(delivered)
            committed_at = time.monotonic()
    await consumer.commit(delivered)
    job.meter.finish()
    await consumer.stop()
    await producer.stop()


async def _settle(pending: Pending, delivered: dict[aiokafka.TopicPartition, int]) -> None:
    """Await the oldest list and note the offset behind it."""
    if pending:
        partition, offset, sent = pending.popleft()
        await sent
        delivered[partition] = offset


async def getmany_send(job: Job) -> None:
    """Every record framed and handed to `send()`, which partitions it; all awaited before each commit."""
    consumer, producer = await _clients(job)
    job.meter.start()
    seen = 0
    while seen < job.events:
        sent: list[asyncio.Future[object]] = []
        for records in (await consumer.getmany(timeout_ms=1_000)).values():
            seen += len(records)
            for record in records:
                topic, tenant, headers = frame(record.headers)
                sent.append(await producer.send(topic, record.value, key=tenant, headers=headers))
        await asyncio.gather(*sent)
        if sent:
            await consumer.commit()
    job.meter.finish()
    await consumer.stop()
    await producer.stop()


@dataclass(frozen=True, slots=True)
class Way:
    """A way through the stack: what runs, how it compresses, the share of the events it gets, and the objects
    after which Python looks for garbage (0: never; Python's own figure is 700).
    """

    title: str
    run: Run
    divisor: int = 1
    compression: str | None = "lz4"
    lz4_level: int = 9
    gc_threshold: int = 700


def _faust(name: str) -> Run:
    """A way of `benchmarks.faust_contenders`, imported when it runs: the others start without Faust."""

    async def run(job: Job) -> None:
        await getattr(importlib.import_module("benchmarks.faust_contenders"), name)(job)

    return run


def _batches(pack: Pack) -> Run:
    return functools.partial(getmany_batches, pack=pack)


WAYS: dict[str, Way] = {
    "faust-send": Way("Faust: `async for event`, `await topic.send()`", _faust("per_event"), 4),
    "faust-send-awaited": Way("the same, each delivery awaited, no linger", _faust("per_event_awaited"), 50),
    "faust-take": Way("Faust: `noack_take(2000)` + `send_batch`", _faust("take"), 2),
    "faust-raw": Way("Faust: raw batch transport + `send_batch`, 4 in flight", _faust("raw")),
    "getmany-send": Way("no Faust: `getmany` + `send()` per record, framed", getmany_send),
    "copy": Way("floor A: `getmany` + `send_batch`, headers copied", _batches(pack_copied)),
    "yardstick": Way("**yardstick**: floor A, framed, partition cache", _batches(framed())),
    "yardstick-hash": Way("yardstick without the cache: murmur2 each time", _batches(framed(cached=False))),
    "yardstick-12": Way("yardstick with 12 headers (tenant, subject)", _batches(framed(frame_in_full))),
    "yardstick-lz4-1": Way("yardstick, lz4 level 1", _batches(framed()), lz4_level=1),
    "yardstick-plain": Way("yardstick, no compression", _batches(framed()), compression=None),
    "yardstick-lz4-1-gc-50k": Way(
        "yardstick, lz4 level 1, gc every 50,000 objects",
        _batches(framed()),
        lz4_level=1,
        gc_threshold=50_000,
    ),
    "yardstick-lz4-1-gc-off": Way(
        "yardstick, lz4 level 1, no gc", _batches(framed()), lz4_level=1, gc_threshold=0
    ),
    "faust-raw-lz4-1": Way("raw batch transport, lz4 level 1", _faust("raw"), lz4_level=1),
    "faust-raw-lz4-1-gc-off": Way(
        "raw batch transport, lz4 level 1, no gc", _faust("raw"), lz4_level=1, gc_threshold=0
    ),
}


def _set_lz4_level(level: int) -> None:
    """aiokafka offers no level: it always asks lz4 for its slow level 9."""
    records = importlib.import_module("aiokafka.record._crecords.default_records")
    vars(records)["lz4_encode"] = functools.partial(lz4_encode, level=level)


def main() -> None:
    """Run one way; print its seconds of CPU and wall as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--staging", required=True)
    parser.add_argument("--events", type=int, required=True)
    arguments = parser.parse_args()
    way = WAYS[arguments.way]
    _set_lz4_level(way.lz4_level)
    gc.set_threshold(way.gc_threshold)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    job = Job(arguments.brokers, arguments.staging, arguments.events, way.compression)
    asyncio.run(way.run(job))
    (cpu, wall), (cpu_finished, wall_finished) = job.meter.started, job.meter.finished
    sys.stdout.write(json.dumps({"startup": cpu, "cpu": cpu_finished - cpu, "wall": wall_finished - wall}))


if __name__ == "__main__":
    main()
