"""Programs that make events durable, 64 callers at once, and print what that took.

    python -m benchmarks.ways.emit stage|aiokafka|confluent SERVERS NAMESPACE FIRST COUNT

Each caller makes one event durable after the other and waits for each: acks=all, idempotent, lz4. `stage` gets
what a service has, a payload and a tenant, and checks it against the catalog; the others get finished records.
The first tenth is not counted. Prints JSON: CPU seconds (of all threads), wall seconds, events counted.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from benchmarks.load import CALLERS, SOURCE, Event, catalog, event, staging_headers
from pipeline.settings import Settings

Emit = Callable[[Event], Awaitable[object]]


class Meter:
    """Callers take their events from here; counts from the moment when the first tenth is done."""

    def __init__(self, first: int, count: int) -> None:
        self.first = first
        self.count = count
        self.done = 0
        self.warm = count // 10
        self.start = (0.0, 0.0)

    async def run(self, emit: Emit) -> dict[str, float]:
        """Let all callers work to the end; what it took."""
        await asyncio.gather(*(self._caller(caller, emit) for caller in range(CALLERS)))
        cpu, wall = time.process_time() - self.start[0], time.perf_counter() - self.start[1]
        return {"cpu": cpu, "wall": wall, "events": self.done - self.warm}

    async def _caller(self, caller: int, emit: Emit) -> None:
        for number in range(self.first + caller, self.first + self.count, CALLERS):
            await emit(event(number))
            self.done += 1
            if self.done == self.warm:
                self.start = (time.process_time(), time.perf_counter())


async def stage(servers: str, namespace: str, stack: AsyncExitStack) -> Emit:
    """Our stager as a service has it."""
    from pipeline.client.stager import Stager

    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="stagepost-bench-"))
    stager = await stack.enter_async_context(Stager(settings_of(servers, namespace, outbox_dir=folder)))

    async def emit(one: Event) -> None:
        await stager.stage(one.definition, one.payload, tenant=one.tenant, id=one.id)

    return emit


def settings_of(
    servers: str, namespace: str, *, outbox: str = "fallback_on_circuit_open", **more: object
) -> Settings:
    """Settings of a service whose events all go the same way: direct, or (`always`) by the outbox."""
    kinds = ("departed", "arrived", "cancelled", "diverted")
    policies = ",".join(f"flight.{kind}.outbox={outbox}" for kind in kinds)
    return Settings.model_validate(
        {
            "brokers": servers,
            "namespace": namespace,
            "catalog": "catalog.examples.flights",
            "cloudevents_source": SOURCE,
            "event_policies": policies,
        }
        | more
    )


async def aiokafka(servers: str, namespace: str, stack: AsyncExitStack, linger_ms: int = 0) -> Emit:
    """aiokafka's own producer, with finished records."""
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(
        bootstrap_servers=servers,
        acks="all",
        enable_idempotence=True,
        compression_type="lz4",
        linger_ms=linger_ms,
        max_batch_size=1_048_576,
    )
    await producer.start()
    stack.push_async_callback(producer.stop)
    topic, fingerprint = f"{namespace}.staging", catalog("bench").fingerprint

    async def emit(one: Event) -> None:
        sent = await producer.send(
            topic, one.payload, key=one.tenant.encode(), headers=staging_headers(one, fingerprint)
        )
        await sent

    return emit


async def confluent(servers: str, namespace: str, stack: AsyncExitStack) -> Emit:
    """librdkafka behind asyncio: deliveries are polled by a thread, which tells the event loop."""
    from confluent_kafka import Producer

    producer = Producer(
        {
            "bootstrap.servers": servers,
            "acks": "all",
            "enable.idempotence": True,
            "compression.type": "lz4",
            "linger.ms": 0,
            "partitioner": "murmur2_random",
        }
    )
    loop, stopped = asyncio.get_running_loop(), threading.Event()
    topic, fingerprint = f"{namespace}.staging", catalog("bench").fingerprint

    def poll() -> None:
        while not stopped.is_set():
            producer.poll(0.1)

    thread = threading.Thread(target=poll)
    thread.start()
    stack.callback(thread.join)
    stack.callback(stopped.set)

    async def emit(one: Event) -> None:
        done = loop.create_future()

        def delivered(error: object, _message: object) -> None:
            if error is None:
                loop.call_soon_threadsafe(done.set_result, None)
            else:
                loop.call_soon_threadsafe(done.set_exception, RuntimeError(str(error)))

        headers: list[Any] = [*staging_headers(one, fingerprint)]
        producer.produce(topic, one.payload, one.tenant, headers=headers, on_delivery=delivered)
        await done

    return emit


WAYS = {"stage": stage, "aiokafka": aiokafka, "confluent": confluent}


async def _main(way: str, servers: str, namespace: str, first: str, count: str) -> None:
    async with AsyncExitStack() as stack:
        emit = await WAYS[way](servers, namespace, stack)
        figures = await Meter(int(first), int(count)).run(emit)
        sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
