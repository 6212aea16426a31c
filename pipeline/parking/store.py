"""Writing to the parked topic and to its cursors, and deleting what was drained.

Owns: the two topics as they are written: order, retries, checkpoints, the deletion of the drained prefix.
Must not know: why something is parked, who drains.

`<ns>.parked` is the store: staging's partition count, a record in the partition it was staged in. Beside it,
`<ns>.parked.cursors` has one small record per change and partition, of which only the last one counts: a
checkpoint of all cursors. It is written behind what it tells of, never ahead, so that the next owner of a
partition at worst drains twice what a crash kept from being noted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from catalog import OwnTopics
from pipeline.clock import Clock
from pipeline.kafka.cluster import Cluster
from pipeline.kafka.lane import Parcel
from pipeline.meter import Meter
from pipeline.park import Origin, dump_checkpoint, park_headers
from pipeline.parking.backlog import Backlog, Partition, Stray
from pipeline.record import OutRecord
from pipeline.staging import record_size

__all__ = ["Store"]

log = logging.getLogger(__name__)

_TRIM_S = 2.0
_TRIM_AGAIN_S = 60.0
_TRIM_RECORDS = 10_000

Trim = Callable[[str, Mapping[int, int]], Awaitable[None]]
"""Delete from a topic, per partition, what stands before an offset."""


class Store:
    """The parked topic and its cursors, as one worker writes them. Nothing here waits but `settled`."""

    def __init__(self, own: Cluster, topics: OwnTopics, clock: Clock, trim: Trim, meter: Meter) -> None:
        self._own = own
        self._topics = topics
        self._clock = clock
        self.meter = meter
        self._trim = trim
        self._saving: set[Partition] = set()
        self._saved = asyncio.Event()
        self._trimmed: dict[int, int] = {}
        self._trimming: asyncio.Task[None] | None = None
        self._next_trim = 0.0

    def park(self, partition: Partition, backlog: Backlog, stray: Stray) -> Parcel:
        """Write a stray behind what its backlog has on the parked topic. Each record's end is told to the stray."""
        now = self._clock.time()
        records: list[OutRecord] = [
            (
                record.key,
                record.value,
                park_headers(
                    record.headers,
                    Origin(backlog.name, partition.number, record.offset, backlog.reason, now),
                ),
            )
            for record in stray.records
        ]
        size = sum(record_size(record.key, record.value, record.headers) for record in stray.records)
        parcel = _ToParked(records, size, partition, backlog, stray, self)
        backlog.under_way += len(records)
        self._own.put(self._topics.parked, partition.number, parcel)
        return parcel

    def save(self, partition: Partition) -> None:
        """Write a checkpoint, if anything changed since the last one and none is under way. Does not block."""
        if partition.taken != partition.revision and partition not in self._saving:
            self._saving.add(partition)
            record: OutRecord = (b"%d" % partition.number, dump_checkpoint(partition.checkpoint()), [])
            self._own.put(self._topics.parked_cursors, partition.number, _ToCursors(record, partition, self))

    async def settled(self, partition: Partition) -> bool:
        """Wait, without limit, until a checkpoint of how the partition is now was acknowledged; false where the
        partition was given away meanwhile."""
        wanted = partition.revision
        while partition.is_ours and partition.kept < wanted:
            self.save(partition)
            self._saved.clear()
            await self._saved.wait()
        return partition.is_ours

    def trim(self, partitions: Mapping[int, Partition], now: float) -> None:
        """Delete what was drained, now and then. Does not block; what fails is tried again."""
        if now < self._next_trim or self._trimming is not None:
            return
        self._next_trim = now + _TRIM_S
        lows = {}
        for number, partition in partitions.items():
            low, done = partition.low(), self._trimmed.get(number, 0)
            if low > done and (low - done >= _TRIM_RECORDS or low == partition.upto):
                lows[number] = low
        if lows:
            self._trimming = asyncio.create_task(self._delete(lows), name="stagepost-trim")

    def let_go(self) -> None:
        """The partitions belong to somebody else."""
        self._saving.clear()
        self._trimmed.clear()
        self._saved.set()

    async def close(self) -> None:
        """End what is under way, at once."""
        if self._trimming is not None:
            self._trimming.cancel()
            await asyncio.wait({self._trimming})

    def now(self) -> float:
        """Seconds since 1970."""
        return self._clock.time()

    def noted(self, partition: Partition, revision: int) -> None:
        """A checkpoint was acknowledged, or refused for good."""
        partition.kept = revision
        self._saving.discard(partition)
        self._saved.set()

    async def _delete(self, lows: Mapping[int, int]) -> None:
        try:
            await self._trim(self._topics.parked, lows)
            self._trimmed.update(lows)
        except Exception as error:  # noqa: BLE001 -- whatever it is: it is tried again
            log.warning("parking.not_trimmed topic=%s error=%r", self._topics.parked, error)
            self._next_trim += _TRIM_AGAIN_S
        finally:
            self._trimming = None


class _ToParked(Parcel):
    """Events on their way to the parked topic, which is an end for each of them (T6).

    As it is created the topic takes every staging record. Where somebody has changed it, what it refuses waits with
    all behind it: nothing is dropped, nothing overtaken (P2).
    """

    insists = True
    __slots__ = ("_backlog", "_size", "_store", "_stray", "partition")

    def __init__(
        self,
        records: list[OutRecord],
        size: int,
        partition: Partition,
        backlog: Backlog,
        stray: Stray,
        store: Store,
    ) -> None:
        super().__init__(records)
        self._size = size
        self.partition = partition
        self._backlog = backlog
        self._stray = stray
        self._store = store

    def acked(self, first: int, count: int, offset: int) -> None:  # noqa: ARG002 -- ends are counted
        """Parked."""
        size = self._size * count // len(self.records)
        self.partition.parked(self._backlog, offset, count, size, self._store.now())
        self._store.meter.parked(self._backlog.name, count)
        self._stray.ended(count)

    def given_up(self, first: int, count: int, error: BaseException) -> None:
        """Not being committed, it will be delivered again."""


class _ToCursors(Parcel):
    """A checkpoint on its way."""

    __slots__ = ("_partition", "_revision", "_store")

    def __init__(self, record: OutRecord, partition: Partition, store: Store) -> None:
        super().__init__((record,))
        self._partition = partition
        self._revision = partition.taken
        self._store = store

    def acked(self, first: int, count: int, offset: int) -> None:  # noqa: ARG002
        """Kept."""
        self._store.noted(self._partition, self._revision)

    def refused(self, index: int, error: BaseException) -> None:  # noqa: ARG002
        """Without it the next owner reads more, and drains more twice; the next one may be taken."""
        log.error("parking.checkpoint_refused error=%r", error)
        self._store.noted(self._partition, self._revision)

    def given_up(self, first: int, count: int, error: BaseException) -> None:  # noqa: ARG002
        """The worker ends."""
        self._store.noted(self._partition, self._revision)
