"""The ways through Faust: per event, `noack_take`, and a transport that hands over whole fetched lists.

The transport is a throwaway: it measures what batches cost and must not be copied. It neither pauses nor
survives a rebalance. Knows nothing of the other ways but what they share.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiokafka
import faust
from faust.transport.drivers.aiokafka import Consumer, Producer, Transport
from faust.types import TP
from faust.types.transports import TransportT

from benchmarks.contenders import BATCH_BYTES, IN_FLIGHT, LINGER_MS, Job, submit
from benchmarks.load import TOPICS, frame
from benchmarks.packing import Record, framed


@dataclass(slots=True)
class RawBatch:
    """One partition's fetched list and the offset behind it."""

    tp: TP
    records: list[Record]
    next_offset: int


class IdempotentProducer(Producer):
    """Faust's producer with idempotence, which at-least-once does not offer."""

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"enable_idempotence": True}


class RawConsumer(Consumer):
    """Delivers one RawBatch per partition and fetch, at most two per partition ahead of their delivery."""

    def __post_init__(self) -> None:
        self._room = asyncio.Semaphore(12)
        self._committable: dict[TP, int] = {}

    async def _drain_messages(self, fetcher: Any) -> None:
        with contextlib.suppress(asyncio.CancelledError, *self.consumer_stopped_errors):
            while not fetcher.should_stop:
                await asyncio.sleep(0)
                records, _ = await self._wait_next_records(1.0)
                for partition, fetched in (records or {}).items():
                    await self._room.acquire()
                    tp = TP(*partition)
                    (channel,) = self.app.topics._tp_index[tp]  # type: ignore[attr-defined] # noqa: SLF001
                    channel.queue.put_nowait(RawBatch(tp, fetched, fetched[-1].offset + 1))

    def ack_batch(self, batch: RawBatch) -> None:
        """`batch`, and all before it in its partition, is delivered."""
        self._committable[batch.tp] = batch.next_offset
        self._room.release()

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:  # noqa: ARG002
        yield from self._committable

    def _new_offset(self, tp: TP) -> int | None:
        return self._committable.get(tp)


class OwnTransport(Transport):
    """Faust's aiokafka transport with the idempotent producer."""

    Producer = IdempotentProducer


class RawTransport(OwnTransport):
    """The same with the consumer of batches."""

    Consumer = RawConsumer


class App(faust.App):
    """A Faust app on one of these transports."""

    transport_class: type[Transport] = OwnTransport

    def _new_transport(self) -> TransportT:
        return self.transport_class(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> TransportT:
        return self.transport_class(self.conf.broker_producer, self)


class RawApp(App):
    """The app whose agent gets batches."""

    transport_class = RawTransport


def _new_app(job: Job, kind: type[App], linger_ms: int = LINGER_MS) -> App:
    app = kind(
        job.group,
        broker=f"kafka://{job.brokers}",
        env_prefix="BENCH_",
        autodiscover=False,
        datadir=tempfile.mkdtemp(prefix="bench-"),
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_auto_offset_reset="earliest",
        broker_commit_interval=1.0,
        producer_acks=-1,
        producer_compression_type=job.compression,
        producer_linger=linger_ms / 1000,
        producer_max_batch_size=BATCH_BYTES,
        producer_request_timeout=20.0,
    )

    @app.on_partitions_assigned.connect
    async def assigned(*_args: object, **_kwargs: object) -> None:
        job.meter.start()

    return app


def _topic(app: App, name: str) -> Any:
    return app.topic(name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")


async def _run(app: App, done: asyncio.Event) -> None:
    await app.start()
    await done.wait()
    await app.stop()
    await asyncio.to_thread(shutil.rmtree, app.conf.datadir)


async def _per_event(job: Job, *, awaited: bool) -> None:
    app = _new_app(job, App, linger_ms=0 if awaited else LINGER_MS)
    done = asyncio.Event()
    targets = {name: _topic(app, name) for name in TOPICS}

    @app.agent(_topic(app, job.staging))
    async def route(stream: Any) -> None:
        seen = 0
        async for event in stream.events():
            topic, tenant, headers = frame(event.message.headers)
            sent = await targets[topic].send(key=tenant, value=event.value, headers=headers)
            if awaited:
                await sent
            seen += 1
            if seen == job.events:
                await app.producer.flush()
                job.meter.finish()
                done.set()

    await _run(app, done)


async def per_event(job: Job) -> None:
    """How everybody writes it: `async for event`, `await topic.send(...)`; the delivery is not awaited."""
    await _per_event(job, awaited=False)


async def per_event_awaited(job: Job) -> None:
    """The same with each delivery awaited: one event at a time."""
    await _per_event(job, awaited=True)


def _producer(app: App) -> aiokafka.AIOKafkaProducer:
    return app.producer._producer  # type: ignore[attr-defined] # noqa: SLF001


async def take(job: Job) -> None:
    """`noack_take(2000)`, `send_batch`, all awaited, then acked in order."""
    app = _new_app(job, App)
    done = asyncio.Event()
    pack = framed()

    @app.agent(_topic(app, job.staging))
    async def route(stream: Any) -> None:
        seen = 0
        async for events in stream.noack_take(2_000, within=0.05):
            producer = _producer(app)
            await (await submit(producer, pack(producer, [event.message for event in events])))
            for event in events:
                event.ack()
            seen += len(events)
            if seen == job.events:
                job.meter.finish()
                done.set()

    await _run(app, done)


async def raw(job: Job) -> None:
    """One RawBatch per partition and fetch, sent as batches, `IN_FLIGHT` of them awaiting delivery."""
    app = _new_app(job, RawApp)
    done = asyncio.Event()
    pack = framed()

    async def settle(pending: deque[tuple[RawBatch, asyncio.Future[list[object]]]]) -> None:
        batch, sent = pending.popleft()
        await sent
        app.consumer.ack_batch(batch)  # type: ignore[attr-defined]

    @app.agent(_topic(app, job.staging))
    async def route(stream: Any) -> None:
        pending: deque[tuple[RawBatch, asyncio.Future[list[object]]]] = deque()
        seen = 0
        async for batch in stream:
            producer = _producer(app)
            pending.append((batch, await submit(producer, pack(producer, batch.records))))
            seen += len(batch.records)
            while len(pending) >= IN_FLIGHT or (pending and seen == job.events):
                await settle(pending)
            if seen == job.events:
                job.meter.finish()
                done.set()

    await _run(app, done)
