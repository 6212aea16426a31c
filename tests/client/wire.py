"""Between the stager and the broker: sees every produce request, and can hold requests or answers back.

The broker and everything on our side of the socket stay real.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.produce import ProduceRequest

from pipeline.kafka.session import Session

__all__ = ["SentBatch", "Wire"]

_ATTRIBUTES = struct.Struct(">h")
_COUNT = struct.Struct(">i")
_CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


@dataclass(frozen=True, slots=True)
class SentBatch:
    """A record batch as it went out (Kafka's message format v2)."""

    partition: int
    data: bytes

    @property
    def codec(self) -> str:
        """How it is compressed: the low three bits of its attributes."""
        return _CODECS[_ATTRIBUTES.unpack_from(self.data, 21)[0] & 7]

    @property
    def records(self) -> int:
        """How many records it has."""
        return int(_COUNT.unpack_from(self.data, 57)[0])


class Wire:
    """Sees the produce requests of this process. Clear `requests` or `answers` to hold them back, set to let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[list[SentBatch]] = []
        """One list of batches for each request that stager made."""
        self.client_ids: set[str] = set()
        self.requests = asyncio.Event()
        self.answers = asyncio.Event()
        self.requests.set()
        self.answers.set()
        self.loses_held = False
        """Whether requests that are held back are lost with their connection when they are let go."""
        self._grown = asyncio.Condition()
        original: Callable[..., Awaitable[object]] = Session.begin

        async def send(session: Session, node: int, request: ProduceRequest) -> object:
            self.client_ids.add(session._connection.client_id)
            batches = [SentBatch(*item) for _, partitions in request._topics for item in partitions]
            async with self._grown:
                self.sent.append(batches)
                self._grown.notify_all()
            if not self.requests.is_set():
                await self.requests.wait()
                if self.loses_held:
                    raise KafkaConnectionError("lost by the test")
            answer = await original(session, node, request)
            await self.answers.wait()
            return answer

        monkeypatch.setattr(Session, "begin", lambda *request: asyncio.ensure_future(send(*request)))

    async def wait_for(self, count: int) -> None:
        """Wait until that many requests have been made."""
        async with asyncio.timeout(10), self._grown:
            await self._grown.wait_for(lambda: len(self.sent) >= count)

    @property
    def records(self) -> int:
        """How many records have been sent, with repetitions."""
        return sum(batch.records for request in self.sent for batch in request)
