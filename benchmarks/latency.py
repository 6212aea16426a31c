"""From `stage()` to the target, over the offered load: a worker, a steady stream through it, and probes in between.

Owns: offering a load, the probes, their percentiles. Must not know: what the worker can do, other contenders.

librdkafka writes the stream to the staging topic at the offered rate, for `stage()` at that rate would need the
cores that worker and broker run on; it does so in a process of its own (`ways/stream.py`), for what shared Python's
lock with it would measure it. Here a real stager stages probes, and one consumer reads the one target partition they
arrive on. A probe's time runs from its call of `stage()` to its arrival at that consumer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import aiokafka

from benchmarks.load import PARTITIONS, event
from benchmarks.load import catalog as flights
from benchmarks.programs import Program, environment, python
from benchmarks.relays import Job, start_worker, targets
from benchmarks.topics import Topics
from benchmarks.ways.emit import settings_of
from pipeline.client.stager import Stager
from pipeline.partition import partition_of

__all__ = ["percentiles"]

_NAMESPACE = "latency"
_PROBES_A_SECOND = 50
_TENANT = "probe"
_DEFINITION = "flight.departed"
_SETTLE_S = 3.0
_QUANTILES = (0.5, 0.9, 0.99, 0.999)


def percentiles(topics: Topics, job: Job, rates: Sequence[float], seconds: float) -> list[dict[str, float]]:
    """For each offered rate (events/s): the rate reached, and p50, p90, p99, p99.9 in milliseconds."""
    topics.create([f"{_NAMESPACE}.staging", *targets(_NAMESPACE)])
    with start_worker(job, NAMESPACE=_NAMESPACE):
        return asyncio.run(_all(topics, job, rates, seconds))


async def _all(topics: Topics, job: Job, rates: Sequence[float], seconds: float) -> list[dict[str, float]]:
    consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=topics.servers, fetch_max_wait_ms=1_000)
    await consumer.start()
    at = aiokafka.TopicPartition(
        flights(_NAMESPACE).topic(_DEFINITION), partition_of(_TENANT.encode(), PARTITIONS)
    )
    consumer.assign([at])
    await consumer.seek_to_end(at)
    found: list[dict[str, float]] = []
    try:
        async with Stager(
            settings_of(topics.servers, _NAMESPACE, outbox_dir=str(job.folder / "probes"))
        ) as stager:
            probes = _Probes(stager, consumer)
            reading = asyncio.create_task(probes.read())
            await probes.stage_for(0.5)  # once these have arrived the worker is up
            await probes.all_arrived(60)
            for rate in rates:
                found += [{"offered_per_s": rate} | await _one(topics, job.folder, probes, rate, seconds)]
            reading.cancel()
    finally:
        await consumer.stop()
    return found


async def _one(
    topics: Topics, folder: Path, probes: _Probes, rate: float, seconds: float
) -> dict[str, float]:
    staging = [f"{_NAMESPACE}.staging"]
    command = python("benchmarks.ways.stream", topics.servers, _NAMESPACE, str(rate))
    with Program(command, environment(), folder / "stream.log") as stream:
        await asyncio.sleep(_SETTLE_S)
        probes.forget()
        before, began = await asyncio.to_thread(topics.ends, staging), time.monotonic()
        await probes.stage_for(seconds)
        after = await asyncio.to_thread(topics.ends, staging)
        reached = (sum(after.values()) - sum(before.values())) / (time.monotonic() - began)
        stream.check()
    await probes.all_arrived(60)
    taken = sorted(probes.taken)
    quantiles = {f"p{q * 100:g}_ms": taken[int(len(taken) * q)] * 1_000 for q in _QUANTILES}
    return {"reached_per_s": reached, "probes": len(taken)} | quantiles


class _Probes:
    """Stages probes and times them."""

    def __init__(self, stager: Stager, consumer: aiokafka.AIOKafkaConsumer) -> None:
        self.taken: list[float] = []
        self._stager = stager
        self._consumer = consumer
        self._began: dict[bytes, float] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._number = 0

    def forget(self) -> None:
        """Count from now on."""
        self.taken.clear()

    async def stage_for(self, seconds: float) -> None:
        """Stage a probe every so often, without waiting for the last one."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            call = asyncio.create_task(self._stage(f"probe-{self._number}"))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
            self._number += 1
            await asyncio.sleep(now + 1 / _PROBES_A_SECOND - time.monotonic())

    async def _stage(self, id_: str) -> None:
        self._began[id_.encode()] = time.perf_counter()
        await self._stager.stage(_DEFINITION, event(0).payload, tenant=_TENANT, id=id_)

    async def read(self) -> None:
        """Take the time of each probe that arrives."""
        async for record in self._consumer:
            began = self._began.pop(dict(record.headers)["ce_id"], None)
            if began is not None:
                self.taken.append(time.perf_counter() - began)

    async def all_arrived(self, limit_s: float) -> None:
        """Wait for what is under way."""
        async with asyncio.timeout(limit_s):
            while self._began:  # noqa: ASYNC110 -- for the last of many, nothing else would say it simpler
                await asyncio.sleep(0.05)
