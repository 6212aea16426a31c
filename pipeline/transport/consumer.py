"""Faust's consumer, with batches for the topics that ask for them.

Owns: handing out fetched lists, pausing without losing, commits by prefix, commits before revocation.
Must not know: what a batch is for. The rules are `pipeline.transport.progress`; this carries them out.

Overrides of Faust 0.15.3, each held by a test in tests/transport: `_drain_messages`, `_new_offset`,
`_filter_tps_with_pending_acks`, `wait_empty`, `on_partitions_revoked`, `perform_seek`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.transports import TPorTopicSet
from mode.types import ServiceT

from pipeline.plan import StagedRecord
from pipeline.transport.progress import Batch, Progress

__all__ = ["Consumer"]

BATCH_RECORDS = 500
"""Records in a batch at most: a few milliseconds of work, so that the loop stays free for everything else."""
WINDOW = 12
"""Unfinished batches of one partition at most."""
_COMMIT_TIMEOUT_S = 5.0


class Consumer(driver.Consumer):
    """Hands out `Batch` objects to the agent of each batch topic; all other topics go Faust's own way."""

    batch_topics: ClassVar[frozenset[str]] = frozenset()
    drain_timeout_s: ClassVar[float] = 10.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.progress: dict[TP, Progress] = {}
        self.jumps = 0
        """How often a fetched list left out records and was fetched again."""
        self._room = asyncio.Event()
        self._batch_ended = asyncio.Event()

    # -- what the worker calls -------------------------------------------------------------------

    def begin(self, batch: Batch) -> bool:
        """Whether the batch may be worked on; false where its partition was lost or waits."""
        return batch.owner.begin(batch)

    def finish(self, batch: Batch) -> None:
        """Every record of the batch has reached an end, awaited (T6). Does not block."""
        progress = batch.owner
        progress.finish(batch)
        self._batch_ended.set()
        if not progress.revoked and not progress.is_full:
            self.on_buffer_drop(TP(batch.topic, batch.partition))
            self._room.set()

    def hold(self, tp: TP, cause: str, batch: Batch | None = None) -> None:
        """Let a partition wait, for a named cause: nothing more of it is handed out, and nothing is lost.

        `batch`: a batch that was begun but of which nothing was written; it is handed out again later.
        """
        progress = self.progress.get(tp)
        if progress is None or (batch is not None and batch.owner is not progress):
            return
        if batch is not None:
            progress.hold_at(batch, cause)
        else:
            progress.hold(cause)
        self._buffered_partitions.discard(tp)
        self.pause_partitions([tp])
        self._batch_ended.set()

    async def release(self, tp: TP) -> None:
        """Let a waiting partition go on, from the first record that was not begun."""
        progress = self.progress.get(tp)
        if progress is None or not progress.cause:
            return
        offset = progress.release()
        if offset is not None:
            await self._go_to(tp, offset)
        if self.progress.get(tp) is progress:
            self.resume_partitions([tp])
            self._room.set()

    def abandoned(self, batches: Sequence[Batch]) -> None:
        """Told of batches whose partition is lost before they ended, so that their writes can be taken back."""

    # -- handing out -----------------------------------------------------------------------------

    async def _drain_messages(self, fetcher: ServiceT) -> None:
        """Upstream's loop with one difference: a list of a batch topic is handed out whole."""
        try:
            while not self.should_stop and not fetcher.should_stop:
                await self._drain_once()
        except self.consumer_stopped_errors:
            if not self.transport.app.should_stop:
                raise
        except asyncio.CancelledError:
            if not self.transport.app.should_stop:
                raise

    async def _drain_once(self) -> None:
        await asyncio.sleep(0)
        if self.flow_active and not self._get_active_partitions():
            self._room.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._room.wait(), timeout=0.2)
            return
        # While a partition is left out for want of room, do not sit long in a fetch that leaves it out too.
        records, active = await self._wait_next_records(0.02 if self._buffered_partitions else 1.0)
        if not records or self.should_stop:
            return
        if not self.flow_active:
            await self._seek_back()
            return
        generation = self.app.consumer_generation_id
        for fetched, items in records.items():
            tp = TP(fetched.topic, fetched.partition)
            if self._is_rebalancing_since(generation):
                return  # everything is read again from the committed offset
            if tp.topic in self.batch_topics:
                await self._hand_out(tp, items)
            elif active is not None and tp in active:
                await self._one_by_one(tp, items)

    def _is_rebalancing_since(self, generation: int) -> bool:
        return not self.flow_active or self.app.consumer_generation_id != generation

    async def _seek_back(self) -> None:
        try:
            await self.perform_seek()
        except Exception as error:  # noqa: BLE001 -- as upstream: the assignment may be gone by now
            self.log.warning("cannot seek to the committed offsets: %r", error)

    async def _hand_out(self, tp: TP, items: Sequence[StagedRecord]) -> None:
        progress = self.progress.get(tp)
        if progress is None:
            progress = self.progress[tp] = Progress(tp.topic, tp.partition, WINDOW)
        if progress.cause:
            return  # released, it is read again from where it stopped
        back_to = progress.must_seek(items[0].offset)
        if back_to is not None:
            self.jumps += 1
            self.log.warning(
                "%s-%s: expected offset %s, fetched %s: reading again", *tp, back_to, items[0].offset
            )
            progress.starts_at(back_to)
            await self._go_to(tp, back_to)
            return
        (channel,) = self.app.topics._tp_index[tp]  # type: ignore[attr-defined]  # noqa: SLF001
        for first in range(0, len(items), BATCH_RECORDS):
            batch = progress.hand_out(items[first : first + BATCH_RECORDS])
            if batch is not None:
                self.app.monitor.stream_inbound_time[tp] = self.loop.time()
                channel.queue.force_put_nowait(batch)
        if progress.is_full:
            self.on_buffer_full(tp)

    async def _go_to(self, tp: TP, offset: int) -> None:
        try:
            await self.seek_wait({tp: offset})
        except Exception as error:
            if tp in self.assignment():
                raise
            self.log.info("no seek in %s-%s, it is not ours any more: %r", *tp, error)

    async def _one_by_one(self, tp: TP, items: Sequence[Any]) -> None:
        """Upstream's way, for topics that did not ask for batches."""
        for record in items:
            read = self._read_offset[tp]
            if read is None or record.offset >= read:
                if read and record.offset - read > 1 and self.app.topics.acks_enabled_for(tp.topic):
                    await self._add_gap(tp, read + 1, record.offset)
                message = self._to_message(tp, record)
                await self.wait_first(self.callback(message), self.suspend_flow.wait())
                self._read_offset[tp] = record.offset

    # -- committing ------------------------------------------------------------------------------

    def _filter_tps_with_pending_acks(self, topics: TPorTopicSet | None = None) -> Iterator[TP]:
        yield from super()._filter_tps_with_pending_acks(topics)
        for tp, progress in self.progress.items():
            if progress.committable is not None and (topics is None or tp in topics or tp.topic in topics):
                yield tp

    def _new_offset(self, tp: TP) -> int | None:
        if tp.topic in self.batch_topics:
            progress = self.progress.get(tp)
            return progress.committable if progress is not None else None
        return super()._new_offset(tp)

    async def wait_empty(self) -> None:
        """Let begun batches end, for at most `DRAIN_TIMEOUT_S`; commit what ended; let go of the rest."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.drain_timeout_s):
                while any(progress.begun for progress in self.progress.values()):
                    self._batch_ended.clear()
                    await self._batch_ended.wait()
        try:
            async with asyncio.timeout(_COMMIT_TIMEOUT_S):
                await super().wait_empty()
        except TimeoutError:
            self.log.warning(
                "the last offsets could not be committed in time: what they cover will come twice"
            )
        abandoned = [batch for progress in self.progress.values() for batch in progress.revoke()]
        self.progress.clear()
        self._buffered_partitions.clear()
        if abandoned:
            self.log.warning(
                "%d batches did not end in time and will be delivered by the next owner", len(abandoned)
            )
            self.abandoned(abandoned)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Commit what is finished while the partitions are still ours; then as Faust does."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_COMMIT_TIMEOUT_S):
                await self.commit()
        await super().on_partitions_revoked(revoked)

    async def perform_seek(self) -> None:
        """Seek to the committed offsets, and remember them as what comes next."""
        await super().perform_seek()
        for tp, offset in self._committed_offset.items():
            if tp.topic in self.batch_topics and offset is not None:
                progress = self.progress.setdefault(tp, Progress(tp.topic, tp.partition, WINDOW))
                if not progress.begun:
                    progress.starts_at(offset)

    def committed(self) -> Mapping[TP, int | None]:
        """The offset last committed of each assigned batch partition."""
        return {tp: self._committed_offset[tp] for tp in self.progress}
