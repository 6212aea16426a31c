"""Faust's consumer, with batches for the topics that ask for them.

Owns: handing out fetched lists, pausing without losing, commits by prefix.
Must not know: what a batch is for. The rules are `pipeline.transport.progress`; this carries them out.

What it overrides or calls of Faust and aiokafka is held by tests/transport/test_transport_pins.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from faust.types import TP
from faust.types.transports import TPorTopicSet

from pipeline.record import ReadRecord
from pipeline.transport.handover import Handover, wait_for
from pipeline.transport.mended import COMMIT_TIMEOUT_S, MendedConsumer
from pipeline.transport.progress import Batch, Memory, Progress
from pipeline.transport.readiness import Facts, PartitionFacts
from pipeline.transport.tenant import Tenant
from pipeline.transport.thread import Fetched

__all__ = ["AHEAD", "UNFINISHED_BYTES", "Consumer"]

AHEAD = 6_000
"""Records of one partition that may be handed out while its first one is unfinished, and then one more list: what a
crash repeats."""
UNFINISHED_BYTES = 50_331_648
"""What the unfinished records of all partitions may take in memory, beside one list of each partition."""
_STRETCH = 12
"""So much longer is a list at most, while memory is mostly free: events for hundreds of topics then share batches. It
takes 40 ms of the loop, and only a backlog fills it."""
_CRASHED_DRAIN_S = 1.0
_NO_FLOW_S = 1.0
_NO_ROOM_S = 0.2


class Consumer(MendedConsumer):
    """Hands out lists of `Batch` objects to the agents of batch topics; all other topics go Faust's own way."""

    batch_topics: ClassVar[frozenset[str]] = frozenset()
    drain_timeout_s: ClassVar[float] = 10.0
    tenant: Tenant = Tenant()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.progress: dict[TP, Progress] = {}
        self.jumps = 0
        """How often a fetched list left out records and was fetched again."""
        self._memory = Memory(UNFINISHED_BYTES)
        self._fetch = 0
        self._asked_at: float | None = None
        """Since when the thread owes an answer."""
        self._handover = Handover(self.app)
        self._room = asyncio.Event()
        self._batch_ended = asyncio.Event()

    # -- what the worker calls -------------------------------------------------------------------

    def begin(self, batch: Batch) -> bool:
        """Whether the batch may be worked on; false where its partition was lost, is being lost, or waits."""
        self._handover.took()
        return self.flow_active and batch.owner.begin(batch)

    def finish(self, batch: Batch) -> None:
        """Every record of the batch has reached an end, awaited (T6). Does not block."""
        batch.owner.finish(batch)
        self._batch_ended.set()
        self._make_room()

    def hold(self, tp: TP, cause: str, batch: Batch | None = None) -> None:
        """Let a partition wait, for a named cause: nothing more of it is handed out, and nothing is lost.

        `batch`: a batch that was begun but of which nothing was written; it is handed out again later. Of
        several causes the last one stands. A partition that is not ours any more is left alone.
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
        self._make_room()

    async def release(self, tp: TP, cause: str) -> None:
        """Let a partition that waits for this cause go on, from the first record that was not begun.

        Nothing happens where it waits for another cause by now, was lost, or does not wait.
        """
        progress = self.progress.get(tp)
        while progress is not None and cause and progress.cause == cause:
            offset = progress.expected
            if offset is not None:
                await self._go_to(tp, offset)
            if self.progress.get(tp) is not progress or progress.cause != cause:
                return
            if progress.expected == offset:
                progress.release(self._fetch + 1)
                self.resume_partitions([tp])
                if progress.is_full:
                    self.on_buffer_full(tp)
                self._room.set()

    def facts(self) -> Facts:
        """How it stands now, for `readiness`. Does not block."""
        partitions = []
        for tp in sorted(tp for tp in self._thread.held() if tp.topic in self.batch_topics):
            progress = self.progress.get(tp) or Progress(*tp, AHEAD, self._memory)
            done, begun = progress.committable, progress.unfinished_from
            committed, end = self._committed_offset.get(tp), self._thread.end_of(tp)
            uncommitted = None if done is None or (committed is not None and committed >= done) else done
            first = next((offset for offset in (committed, begun, end) if offset is not None), 0)
            lag = None if end is None else max(0, end - first)
            partitions.append(PartitionFacts(tp.partition, progress.cause, begun, uncommitted, lag))
        asked = self._asked_at
        silent_s = 0.0 if asked is None else time.monotonic() - asked
        return Facts(self._thread.not_member(), self.app.in_recovery, silent_s, partitions)

    # -- handing out -----------------------------------------------------------------------------

    async def drain_once(self) -> None:
        """Fetch, and hand out what was fetched: a list of a batch topic whole."""
        self._thread.check()
        if not self.flow_active:
            await wait_for(self.can_resume_flow, _NO_FLOW_S)
            return
        if not len(self._active_partitions):
            self._asked_at = time.monotonic()
            await self._thread.answer()
            self._asked_at = None
            self._room.clear()
            await wait_for(self._room, _NO_ROOM_S)
            return
        await self._handover.taken(_NO_ROOM_S)
        self._fetch += 1
        self._asked_at = time.monotonic()
        self._thread.stretch = self._memory.stretch(self.app.conf.broker_max_poll_records, _STRETCH)
        # While a partition is left out for want of room, do not sit long in a fetch that leaves it out too.
        records, _ = await self._wait_next_records(0.02 if self._buffered_partitions else 1.0)
        self._asked_at = None
        generation = self.app.consumer_generation_id
        if not isinstance(records, Fetched):
            return
        fetched = [(TP(at.topic, at.partition), items) for at, items in records.items()]
        batches = defaultdict[str, list[Batch]](list)
        for tp, items in fetched:
            # While it rebalances nothing is handed out: all is read again from the committed offset.
            if tp.topic in self.batch_topics and not self.is_rebalancing_since(generation):
                batch = await self._batch_of(tp, items, records.before.get(tp), records.after.get(tp))
                if batch is not None:
                    batches[tp.topic].append(batch)
        for topic, together in batches.items():
            self._handover.give(topic, together)
        for tp, items in fetched:
            is_ours = tp in self._active_partitions or tp in self._buffered_partitions
            if tp.topic not in self.batch_topics and is_ours:
                await self.hand_out_one_by_one(tp, items, generation)

    async def _batch_of(
        self, tp: TP, items: Sequence[ReadRecord], before: int | None, after: int | None
    ) -> Batch | None:
        progress = self._progress_of(tp)
        first = items[0].offset if before is None else min(before, items[0].offset)
        if progress.cause or tp in self._paused_partitions:
            progress.leave_out(first)
            return None
        back_to = progress.must_seek(first, self._fetch)
        if back_to is not None:
            self.jumps += 1
            self.log.warning("consumer.gap topic=%s partition=%d expected=%d fetched=%d", *tp, back_to, first)
            await self._go_to(tp, back_to)
            if progress.expected == back_to:
                progress.stands_at(back_to, self._fetch + 1)
            return None
        if progress.expected is not None and first > progress.expected:
            self.log.error(
                "consumer.hole topic=%s partition=%d from=%d to=%d -- if retention deleted what was there, it was "
                "never delivered",
                *tp,
                progress.expected,
                first,
            )
        batch = progress.hand_out(items, after)
        if progress.is_full:
            self.on_buffer_full(tp)
        return batch

    def _progress_of(self, tp: TP) -> Progress:
        progress = self.progress.get(tp)
        if progress is None:
            progress = self.progress[tp] = Progress(tp.topic, tp.partition, AHEAD, self._memory)
        return progress

    def _make_room(self) -> None:
        """Fetch again from partitions that were full; what one gave back, another may take."""
        for tp in [tp for tp in self._buffered_partitions if tp in self.progress]:
            if not self.progress[tp].is_full:
                self.on_buffer_drop(tp)
                self._room.set()

    async def _go_to(self, tp: TP, offset: int) -> None:
        try:
            await self.seek_wait({tp: offset})
        except Exception as error:
            if tp in self.assignment():
                await self.crash(error)
                raise
            self.log.info("consumer.no_seek topic=%s partition=%d error=%r", *tp, error)

    def resume_flow(self) -> None:
        """Go on after a rebalance."""
        super().resume_flow()
        self._room.set()

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek to the committed offsets, and remember them as what comes next."""
        offsets = await super().seek_to_committed()
        for at, offset in offsets.items():
            if at.topic in self.batch_topics and offset is not None:
                progress = self._progress_of(TP(at.topic, at.partition))
                if progress.is_idle:
                    # aiokafka does not seek to offset 0: it may stand elsewhere.
                    progress.stands_at(offset, self._fetch + 1 if offset else None)
        return offsets

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Upstream's alarm for streams that stand still; ours wait for causes that the pages name."""
        if tp.topic not in self.batch_topics:
            super().verify_event_path(now, tp)

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

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:
        """Upstream takes what the broker refused for committed. A commit of an earlier generation may be refused
        only after the partition came back: then nothing would be committed until more comes."""
        done = await super()._commit_offsets(offsets, start_new_transaction)
        if not done:
            for tp in offsets:
                if tp.topic in self.batch_topics:
                    self._committed_offset.pop(tp, None)
        return done

    async def wait_empty(self) -> None:
        """Let begun batches end, for at most `DRAIN_TIMEOUT_S`; commit what ended; let go of the rest.

        Called when partitions are revoked and when the worker stops. A worker that crashed waits a second:
        what broke it will not end.
        """
        limit = _CRASHED_DRAIN_S if self._crashed.is_set() else self.drain_timeout_s
        started = time.monotonic()
        self.tenant.settling()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                while any(progress.begun for progress in self.progress.values()):
                    self._batch_ended.clear()
                    await self._batch_ended.wait()
                await self.tenant.settled()
        left = max(0.0, started + limit - time.monotonic())
        in_time = await self.within(left + COMMIT_TIMEOUT_S, super().wait_empty())
        if not (in_time and await self.commit_now()):
            self.log.warning("consumer.not_committed -- what is not committed will come twice")
        self._let_go()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Begin anew with every partition: all of them were revoked before."""
        self._let_go()
        self.tenant.assigned({tp for tp in assigned if tp.topic in self.batch_topics})
        await super().on_partitions_assigned(assigned, generation_id)

    def _let_go(self) -> None:
        abandoned = [batch for progress in self.progress.values() for batch in progress.revoke()]
        self._buffered_partitions.difference_update(self.progress)
        self.progress.clear()
        self.tenant.let_go()
        if abandoned:
            self.log.warning("consumer.abandoned batches=%d -- the next owner delivers them", len(abandoned))
            self.tenant.abandoned(abandoned)
