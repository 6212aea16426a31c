"""From `stage()` to the target, over the offered load: a relay, a steady stream through it, and probes in between.

Owns: offering a load, the probes, their percentiles. Must not know: what a relay can do, other contenders.

The stream is written by a process of its own (`ways/stream.py`), which takes little of the cores that relay and broker
run on: `stage()` at that rate would need them. Here a real stager stages probes, each measured twice: until `stage()`
returns, and until a reader has it from its target. The reader is librdkafka, in a thread: of the stream's records that
lie around a probe it looks at the keys.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from benchmarks.load import PARTITIONS, event
from benchmarks.load import catalog as flights
from benchmarks.programs import Program, environment, idle_s, python
from benchmarks.relays import Job, start_floor, start_worker, targets
from benchmarks.topics import Topics
from benchmarks.ways.emit import settings_of
from pipeline.client.stager import Stager
from pipeline.partition import partition_of

__all__ = ["floor", "percentiles", "worker"]

_PROBES_A_SECOND = 100
_TENANT = "probe"
_DEFINITION = "flight.departed"
_SETTLE_S = 4.0
_QUANTILES = (0.5, 0.9, 0.99, 0.999)
_AT_ONCE = 500
_POLL_S = 0.2

Start = Callable[[Job, str], Program]
"""Starts a relay for a namespace."""


def worker(job: Job, namespace: str) -> Program:
    """This worker."""
    return start_worker(job, NAMESPACE=namespace)


def floor(job: Job, namespace: str) -> Program:
    """The floor."""
    return start_floor(job, _staging(namespace), namespace, level=1)


def percentiles(
    topics: Topics, job: Job, start: Start, loads: Sequence[tuple[float, float]]
) -> list[dict[str, float]]:
    """For each load (events/s, seconds): the rate reached, the percentiles in ms, how many cores were idle.

    `staged_p99_ms` is of the calls of `stage()`, the rest from that call to the target. The topics are new ones.
    """
    namespace = f"latency-{secrets.token_hex(4)}"
    topics.create([_staging(namespace), *targets(namespace)])
    with start(job, namespace):
        return asyncio.run(_all(topics, job, namespace, loads))


def _staging(namespace: str) -> str:
    return f"{namespace}.staging"


async def _all(
    topics: Topics, job: Job, namespace: str, loads: Sequence[tuple[float, float]]
) -> list[dict[str, float]]:
    found: list[dict[str, float]] = []
    settings = settings_of(topics.servers, namespace, outbox_dir=str(job.folder / "probes"))
    arrives = flights(namespace).topic(_DEFINITION), partition_of(_TENANT.encode(), PARTITIONS)
    async with Stager(settings) as stager:
        probes = _Probes(stager)
        with _Reader(topics, arrives, probes.arrived):
            await probes.stage_for(0.5)  # once these have arrived the relay is up
            await probes.all_arrived(60)
            for rate, seconds in loads:
                one = await _one(topics, job, namespace, probes, rate, seconds)
                found.append({"offered_per_s": rate} | one)
    return found


async def _one(
    topics: Topics, job: Job, namespace: str, probes: _Probes, rate: float, seconds: float
) -> dict[str, float]:
    command = python("benchmarks.ways.stream", topics.servers, namespace, str(rate))
    with Program(command, environment(), job.folder / "stream.log") as stream:
        await probes.stage_for(_SETTLE_S)
        await probes.all_arrived(60)
        probes.forget()
        before = await asyncio.to_thread(topics.ends, [_staging(namespace)])
        began, idle = time.monotonic(), idle_s()
        await probes.stage_for(seconds)
        took, idle = time.monotonic() - began, idle_s() - idle
        after = await asyncio.to_thread(topics.ends, [_staging(namespace)])
        stream.check()
    await probes.all_arrived(60)
    taken, staged = sorted(probes.taken), sorted(probes.staged)
    quantiles = {f"p{q * 100:g}_ms": _quantile(taken, q) for q in _QUANTILES}
    return {
        "reached_per_s": (sum(after.values()) - sum(before.values())) / took,
        "probes": len(taken),
        "idle_cores": idle / took,
        "staged_p99_ms": _quantile(staged, 0.99),
    } | quantiles


def _quantile(taken: Sequence[float], q: float) -> float:
    return taken[int(len(taken) * q)] * 1_000


class _Probes:
    """Stages probes and times them."""

    def __init__(self, stager: Stager) -> None:
        self.taken: list[float] = []
        self.staged: list[float] = []
        self._stager = stager
        self._began: dict[bytes, float] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._number = 0

    def forget(self) -> None:
        """Count from now on."""
        self.taken.clear()
        self.staged.clear()

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
        began = self._began[id_.encode()] = time.perf_counter()
        await self._stager.stage(_DEFINITION, event(0).payload, tenant=_TENANT, id=id_)
        self.staged.append(time.perf_counter() - began)

    def arrived(self, id_: bytes, at: float) -> None:
        """A record of a probe was read. Called by the reader's thread."""
        began = self._began.pop(id_, None)
        if began is not None:
            self.taken.append(at - began)

    async def all_arrived(self, limit_s: float) -> None:
        """Wait for what is under way."""
        async with asyncio.timeout(limit_s):
            while self._began:  # noqa: ASYNC110 -- for the last of many, nothing else would say it simpler
                await asyncio.sleep(0.05)


class _Reader:
    """Reads one partition from its end on, and tells of the probes on it."""

    def __init__(self, topics: Topics, at: tuple[str, int], arrived: Callable[[bytes, float], None]) -> None:
        end = topics.ends([at[0]])[at]
        self._consumer = Consumer(
            {
                "bootstrap.servers": topics.servers,
                "group.id": "latency",
                "enable.auto.commit": False,
                "log_level": 3,
            }
        )
        self._consumer.assign([TopicPartition(*at, end)])
        self._arrived = arrived
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._read, name="probes")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        self._consumer.close()

    def _read(self) -> None:
        consumer, wanted = self._consumer, _TENANT.encode()
        while not self._ending.is_set():
            first = consumer.poll(_POLL_S)  # `consume` would wait until it has as many as it is asked for
            messages: list[Any] = [] if first is None else [first, *consumer.consume(_AT_ONCE, 0)]
            now = time.perf_counter()
            for message in messages:
                if message.key() == wanted:
                    self._arrived(dict(message.headers() or ())["ce_id"], now)
