"""A worker that is stopped while its group rebalances leaves as any other."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from devtools.kafka import Brokers
from tests.kafka_client import create_topic
from tests.transport.batch_app import PARTITIONS, BatchApp, running, until

pytestmark = pytest.mark.kafka

SESSION_S = 38.0
"""Longer than `until` waits."""


async def test_it_leaves_its_group(kafka: Brokers, namespace: str, tmp_path: Path) -> None:
    """T6: its partitions are given away at once, and not after the session timeout. Faust closes the connections of
    the consumer under it where a rebalance ends while the worker stops."""
    create_topic(kafka.bootstrap, f"{namespace}.staging", PARTITIONS)
    first = BatchApp(kafka.bootstrap, namespace, tmp_path / "first")
    second = BatchApp(kafka.bootstrap, namespace, tmp_path / "second")
    first.app.conf.broker_session_timeout = SESSION_S
    stopping: list[asyncio.Task[None]] = []

    async def stop_first(*_: Any, **__: Any) -> None:
        stopping.append(asyncio.create_task(first.stop()))

    await first.start()
    first.app.on_partitions_revoked.connect(stop_first)
    async with running(second):
        await until(lambda: bool(stopping))
        await stopping[0]
        await until(lambda: len(second.assigned) == PARTITIONS)
