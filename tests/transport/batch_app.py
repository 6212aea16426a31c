"""A Faust app with batches in the test's own event loop, and an agent that does what the test says.

Owns: starting and ending it, what its agent saw. Must not know: what any test is about.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from faust.types import TP

from catalog import OwnTopics
from pipeline.record import ReadRecord
from pipeline.settings import Settings
from pipeline.transport.app import App, make_app
from pipeline.transport.progress import Batch

__all__ = ["BatchApp", "Records", "running", "until"]

PARTITIONS = 6

B = TypeVar("B", bound="BatchApp")
Records = Mapping[TP, list[Any]]
"""What a fetch brings."""


class BatchApp:
    """A worker's app whose one agent begins every batch and gives it to `on_batch`.

    `on_batch` is to call `finish` sometime; without one, batches are finished at once. Change `app` before
    `start`.
    """

    def __init__(
        self,
        bootstrap: str,
        namespace: str,
        folder: Path,
        on_batch: Callable[[Batch], None] | None = None,
        drain_timeout_s: float = 10.0,
    ) -> None:
        self.own = OwnTopics(namespace)
        self.seen: list[Batch] = []
        self.offsets: list[tuple[int, int]] = []
        """Partition and offset of every record the agent was given, in order."""
        self.records: list[ReadRecord] = []
        self.on_batch = on_batch or self.finish
        self.app = self._app(
            Settings(
                brokers=(bootstrap,),
                catalog="catalog.examples.flights",
                cloudevents_source="/tests/transport",
                namespace=namespace,
                topic_partitions=PARTITIONS,
                drain_timeout_s=drain_timeout_s,
                data_dir=str(folder),
            )
        )

    async def next_fetch(self, do: Callable[[Records], Awaitable[Records]]) -> None:
        """From the next fetch on, do something to what was fetched, or while it is on its way.

        Returns when the fetch that was under way has ended.
        """
        consumer = self.app.batches
        fetch = consumer._wait_next_records

        async def fetch_and_do(limit_s: float) -> tuple[Records, set[TP] | None]:
            records, active = await fetch(limit_s)
            return await do(records or {}), active

        consumer._wait_next_records = fetch_and_do  # type: ignore[method-assign, assignment]
        number = consumer._fetch
        await until(lambda: consumer._fetch > number)

    def finish(self, batch: Batch) -> None:
        """The batch has reached its end."""
        self.app.batches.finish(batch)

    def tp(self, partition: int = 0) -> TP:
        """A partition of the staging topic."""
        return TP(self.own.staging, partition)

    @property
    def assigned(self) -> set[int]:
        """The staging partitions that are ours."""
        return {tp.partition for tp in self.app.consumer.assignment() if tp.topic == self.own.staging}

    async def start(self) -> None:
        """Start the app and wait until it has its partitions and reads."""
        self.app.finalize()
        await self.app.start()
        await until(lambda: bool(self.assigned) and self.app.batches.flow_active and not self.app.rebalancing)

    async def stop(self) -> None:
        """Stop it as SIGTERM does."""
        await self.app.stop()

    def _app(self, settings: Settings) -> App:
        app = make_app(settings)
        app.conf.web_enabled = False
        app.conf.broker_heartbeat_interval = 0.3  # members learn of a rebalance by heartbeat
        staging = app.topic(
            self.own.staging, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
        )

        @app.agent(staging, name="stagepost.route", concurrency=1)
        async def route(batches: Any) -> None:
            async for fetched in batches:
                for batch in fetched:
                    if app.batches.begin(batch):
                        self.seen.append(batch)
                        self.records.extend(batch.records)
                        self.offsets += [(batch.partition, record.offset) for record in batch.records]
                        self.on_batch(batch)

        return app


@asynccontextmanager
async def running(one: B) -> AsyncIterator[B]:
    """Start it, and stop it at the end of the block unless it was stopped."""
    await one.start()
    try:
        yield one
    finally:
        await one.stop()


async def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait until the condition holds; `AssertionError` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain"
        await asyncio.sleep(0.01)
