"""Faust's consumer, mended where it loses or hangs; for ordinary agents of users as well.

Owns: commits that really happen and do not hang, partitions that come back only when nothing can vanish.
Must not know: batches.

What it overrides or calls of Faust and aiokafka is held by tests/transport/test_transport_pins.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, ClassVar

from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.types import ServiceT

from pipeline.kafka.connection import Connection
from pipeline.transport.thread import ConsumerThread

__all__ = ["COMMIT_TIMEOUT_S", "MendedConsumer"]

COMMIT_TIMEOUT_S = 5.0


class _Partitions(set[TP]):
    """The partitions to fetch from. aiokafka takes a set that is false for all partitions; this one never is."""

    def __bool__(self) -> bool:
        return True


class MendedConsumer(driver.Consumer):
    """Upstream's consumer without its ways to lose."""

    connection: ClassVar[Connection]
    """The way to its brokers."""
    _thread: ConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._resume_later: set[TP] = set()

    def _reset_state(self) -> None:
        super()._reset_state()
        self._active_partitions = _Partitions()

    def _new_consumer_thread(self) -> ConsumerThread:
        thread = ConsumerThread(self, loop=self.loop, beacon=self.beacon)
        thread.connection = self.connection
        return thread

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Resume fetching; after a rebalance not before the flow resumes.

        Faust's table recovery resumes the partitions, then seeks, then clears the agents' queues, all with the
        flow on: what is fetched in between vanishes.
        """
        tps = set(tps)
        if self.app.rebalancing:
            later = {tp for tp in tps if not self._is_changelog_tp(tp)}
            self._resume_later |= later
            tps -= later
        super().resume_partitions(tps)

    def resume_flow(self) -> None:
        """Go on after a rebalance."""
        super().resume_flow()
        super().resume_partitions(self._resume_later)
        self._resume_later.clear()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Commit what is finished while the partitions are still ours: upstream forgets it first.

        Nothing is handed out from here on: what finished after the commit would be forgotten, and come twice.
        """
        self.stop_flow()
        self.app.flow_control.suspend()
        self.app.flow_control.clear()
        await self.commit_now()
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Begin anew with every partition."""
        self._resume_later.clear()
        await super().on_partitions_assigned(assigned, generation_id)

    async def commit_now(self) -> bool:
        """Commit everything that is finished now; false where that takes longer than `COMMIT_TIMEOUT_S`."""

        async def twice() -> None:
            # The first may only have waited for one that began before the last event ended.
            await self.commit()
            await self.commit()

        return await self.within(COMMIT_TIMEOUT_S, twice())

    async def within(self, limit_s: float, work: Coroutine[Any, Any, None]) -> bool:
        """Whether the work ends in time. Upstream's commit swallows a cancellation, so nobody awaits one."""
        task = asyncio.create_task(work)
        done, _ = await asyncio.wait({task}, timeout=limit_s)
        if done:
            task.result()
        else:
            task.cancel()
        return bool(done)

    def is_rebalancing_since(self, generation: int) -> bool:
        """Whether what was fetched in that generation must not be handed out any more; it is read again."""
        return self.should_stop or not self.flow_active or self.app.consumer_generation_id != generation

    async def hand_out_one_by_one(self, tp: TP, items: Sequence[Any], generation: int) -> None:
        """Upstream's way: each record to the conductor, which finds its agents."""
        for record in items:
            if self.is_rebalancing_since(generation):
                return
            read = self._read_offset[tp]
            if read is None or record.offset >= read:
                if read and record.offset - read > 1 and self.app.topics.acks_enabled_for(tp.topic):
                    await self._add_gap(tp, read + 1, record.offset)
                message = self._to_message(tp, record)
                await self.wait_first(self.callback(message), self.suspend_flow.wait())
                self._read_offset[tp] = record.offset

    async def _drain_messages(self, fetcher: ServiceT) -> None:
        """Upstream's loop, around `drain_once`."""
        try:
            while not self.should_stop and not fetcher.should_stop:
                await asyncio.sleep(0)
                await self.drain_once()
        except self.consumer_stopped_errors:
            if not self.transport.app.should_stop:
                raise
        except asyncio.CancelledError:
            if not self.transport.app.should_stop:
                raise

    async def drain_once(self) -> None:
        """Fetch, and hand out what was fetched."""
        raise NotImplementedError
