"""What the tests of the producer share: parcels that remember, a producer for one test, a spy on its requests.

Must not know: which test, which broker.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka.protocol.produce import ProduceRequest

from pipeline.kafka.connection import Connection
from pipeline.kafka.lane import Parcel
from pipeline.kafka.producer import Producer, ProducerOptions
from pipeline.record import OutRecord
from tests.kafka_client import read_all

__all__ = ["Told", "Wire", "connection", "eventually", "producing", "values_on"]

_CLOSE_S = 5.0


class Told(Parcel):
    """Remembers what it was told: `acked` offsets, `refused` and `given_up` errors, each by the record's index.

    `done` is set when every record has ended.
    """

    __slots__ = ("acks", "done", "failures", "refusals")

    def __init__(self, *values: bytes | None, deadline: float | None = None) -> None:
        super().__init__([(b"k", value, []) for value in values], deadline)
        self.acks: dict[int, int] = {}
        self.refusals: dict[int, BaseException] = {}
        self.failures: dict[int, BaseException] = {}
        self.done = asyncio.Event()

    @classmethod
    def of(cls, *records: OutRecord) -> Told:
        """A parcel of whole records."""
        parcel = cls()
        parcel.records = records
        return parcel

    def acked(self, first: int, count: int, offset: int) -> None:
        """Remember the offsets."""
        self.acks.update((first + step, offset + step if offset >= 0 else -1) for step in range(count))
        self._ended()

    def refused(self, index: int, error: BaseException) -> None:
        """Remember why."""
        self.refusals[index] = error
        self._ended()

    def given_up(self, first: int, count: int, error: BaseException) -> None:
        """Remember why."""
        self.failures.update(dict.fromkeys(range(first, first + count), error))
        self._ended()

    def _ended(self) -> None:
        if len(self.acks) + len(self.refusals) + len(self.failures) == len(self.records):
            self.done.set()

    async def wait(self, timeout_s: float = 20.0) -> Told:
        """Wait until every record has ended."""
        async with asyncio.timeout(timeout_s):
            await self.done.wait()
        return self


class Wire:
    """Sees the produce requests of one producer, and holds their answers back while `answers` is cleared."""

    def __init__(self, producer: Producer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.requests: list[list[tuple[str, int, bytes]]] = []
        """Topic, partition and record batch of each request."""
        self.answers = asyncio.Event()
        self.answers.set()
        self._begin: Callable[..., Any] = producer._session.begin
        monkeypatch.setattr(
            producer._session, "begin", lambda *request: asyncio.ensure_future(self._spy(*request))
        )

    async def _spy(self, node: int, request: ProduceRequest) -> object:
        self.requests.append(
            [
                (topic, partition, bytes(data))
                for topic, batches in request._topics
                for partition, data in batches
            ]
        )
        answer = await self._begin(node, request)
        await self.answers.wait()
        return answer

    async def seen(self, count: int) -> None:
        """Wait until so many requests were sent."""
        await eventually(lambda: len(self.requests) >= count, f"{count} requests")


def connection(bootstrap: str) -> Connection:
    """A connection as the settings would make it."""
    return Connection(tuple(bootstrap.split(",")), "stagepost-tests")


@asynccontextmanager
async def producing(bootstrap: str, options: ProducerOptions | None = None) -> AsyncIterator[Producer]:
    """A started producer, closed at the end."""
    producer = Producer(connection(bootstrap), options or ProducerOptions())
    await producer.start()
    try:
        yield producer
    finally:
        await producer.close(_CLOSE_S)


async def eventually(holds: Callable[[], object], what: str, timeout_s: float = 20.0) -> None:
    """Wait until something holds that another process or task brings about."""
    try:
        async with asyncio.timeout(timeout_s):
            while not holds():  # noqa: ASYNC110 -- it polls what another process does
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"waited {timeout_s:g} s in vain for {what}") from None


def values_on(bootstrap: str, topic: str) -> dict[int, list[bytes | None]]:
    """The values on each partition that has any, in order, as librdkafka reads them."""
    records = read_all(bootstrap, topic)
    return {
        partition: [record.value for record in group]
        for partition, group in itertools.groupby(records, lambda record: record.partition)
    }
