"""The recovery after a rebalance ends the worker where upstream's would stop looking and keep its partitions."""

from __future__ import annotations

import asyncio

import pytest
from faust.tables.recovery import ServiceStopped

from pipeline.settings import Settings
from pipeline.transport.app import make_app
from pipeline.transport.recovery import Recovery


def recovery_of_a_worker() -> Recovery:
    """That of an app which connects to nothing."""
    settings = Settings(
        brokers=("127.0.0.1:19092",),
        catalog="catalog.examples.flights",
        cloudevents_source="/tests/transport",
    )
    recovery = make_app(settings).tables.recovery  # type: ignore[attr-defined]
    assert isinstance(recovery, Recovery)
    return recovery


async def test_a_step_that_takes_too_long_is_an_error() -> None:
    """T5: committed offsets that cannot be read in time must not leave partitions owned and unread."""
    with pytest.raises(TimeoutError, match="a step"):
        await recovery_of_a_worker()._wait(asyncio.Event().wait(), timeout=0.01)


async def test_a_stop_is_none() -> None:
    """T5: a worker that is told to stop ends as before."""
    recovery = recovery_of_a_worker()
    recovery._stopped.set()
    with pytest.raises(ServiceStopped):
        await recovery._wait(asyncio.Event().wait(), timeout=10)


async def test_a_step_that_ends_in_time_goes_on() -> None:
    """T5: nothing else changes."""
    await recovery_of_a_worker()._wait(asyncio.sleep(0), timeout=10)
