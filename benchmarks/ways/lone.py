"""One call at a time: how long one event takes to become durable. Blocks of each way take turns in one process.

    python -m benchmarks.ways.lone SERVERS NAMESPACE CALLS

`stage()`; `stage_blocking()` of the same stager, called from another thread; aiokafka's `send_and_wait` with
linger 0. Prints JSON: for each way its median and 99th percentile, in microseconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from contextlib import AsyncExitStack

from benchmarks.load import Event, event
from benchmarks.ways.emit import Emit, aiokafka, settings_of
from pipeline.client.stager import Stager

_BLOCK = 50


async def _awaited(emit: Emit, first: int, times: list[float]) -> None:
    for number in range(first, first + _BLOCK):
        one = event(number)
        began = time.perf_counter()
        await emit(one)
        times.append(time.perf_counter() - began)


def _blocking(stager: Stager, first: int, times: list[float]) -> None:
    for number in range(first, first + _BLOCK):
        one = event(number)
        began = time.perf_counter()
        stager.stage_blocking(one.definition, one.payload, tenant=one.tenant, id=one.id)
        times.append(time.perf_counter() - began)


async def _main(servers: str, namespace: str, calls: str) -> None:
    times: dict[str, list[float]] = {"stage": [], "stage_blocking": [], "send_and_wait": []}
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="stagepost-bench-"))
        stager = await stack.enter_async_context(Stager(settings_of(servers, namespace, outbox_dir=folder)))
        send_and_wait = await aiokafka(servers, namespace, stack)

        async def stage(one: Event) -> None:
            await stager.stage(one.definition, one.payload, tenant=one.tenant, id=one.id)

        for first in range(0, int(calls) + _BLOCK, _BLOCK):
            await _awaited(stage, first, times["stage"])
            await _awaited(send_and_wait, first, times["send_and_wait"])
            await asyncio.to_thread(_blocking, stager, first, times["stage_blocking"])
    figures = {}
    for way, taken in times.items():
        counted = sorted(taken[_BLOCK:])
        figures[way] = {
            "p50": counted[len(counted) // 2] * 1e6,
            "p99": counted[len(counted) * 99 // 100] * 1e6,
        }
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
