"""Relays of one stager share its breaker: while one asks for the broker, the others leave the event loop alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from pipeline.breaker import Breaker, BreakerPolicy
from pipeline.client.relay import Relay
from pipeline.clock import SYSTEM_CLOCK
from pipeline.kafka.connection import staging_cluster
from pipeline.kafka.lane import Lane
from pipeline.kafka.producer import Producer, ProducerOptions
from pipeline.outbox.protocol import Stored
from pipeline.settings import Settings

SETTINGS = Settings(brokers=("127.0.0.1:1",), catalog="tests.catalogs.shop", cloudevents_source="//tests")


class NoRows:
    """An outbox with nothing in it."""

    async def read(self, after: int, limit: int) -> Sequence[Stored]:  # noqa: ARG002
        """Nothing."""
        return ()

    async def delete(self, rows: Sequence[Stored]) -> None:
        """Nothing to forget."""

    async def set_aside(self, row: Stored, reason: str) -> None:
        """Nothing to keep."""


@pytest.mark.timeout(15)
async def test_a_relay_waits_while_another_one_asks() -> None:
    """S7, S9: an orphan's relay beside the stager's own, one of them probing: `stage()` still gets its turn."""
    breaker = Breaker(BreakerPolicy(open_s=0.0))
    breaker.trip(0.0, "the broker is down")
    assert breaker.may_probe(1.0), "the other relay asks"
    lane = Lane("staging", 0)
    producer = Producer(staging_cluster(SETTINGS), ProducerOptions())
    relay = Relay(
        NoRows(),
        producer,
        breaker,
        SYSTEM_CLOCK,
        topic="staging",
        lane_of=lambda _: lane,
        probe_timeout_s=1.0,
    )
    relay.start()
    for _ in range(10):
        await asyncio.sleep(0)
    assert relay._task is not None
    assert not relay._task.done(), "it held the event loop until the test's time limit ended it"
    await relay.stop()
