"""Sending records and waiting for what becomes of each.

Owns: parcels that can be awaited. Must not know: what is sent, or why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from pipeline.errors import StagerClosed
from pipeline.kafka.cluster import Cluster
from pipeline.kafka.lane import Parcel
from pipeline.partition import key_hash
from pipeline.record import OutRecord

__all__ = ["ship", "ship_all"]

Refused = dict[int, BaseException]


class _Awaited(Parcel):
    """Records of one partition, in order."""

    __slots__ = ("_left", "done", "refusals")

    def __init__(self, records: Sequence[OutRecord]) -> None:
        super().__init__(records)
        self._left = len(records)
        self.refusals: Refused = {}
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def acked(self, first: int, count: int, offset: int) -> None:  # noqa: ARG002 -- only that they are is asked
        self._ended(count)

    def refused(self, index: int, error: BaseException) -> None:
        self.refusals[index] = error
        self._ended(1)

    def given_up(self, first: int, count: int, error: BaseException) -> None:  # noqa: ARG002
        if not self.done.done():
            self.done.set_exception(StagerClosed("the worker stops"))

    def _ended(self, count: int) -> None:
        self._left -= count
        if not self._left and not self.done.done():
            self.done.set_result(None)


async def ship(cluster: Cluster, topic: str, records: Sequence[tuple[int, OutRecord]]) -> Refused:
    """Send records, each to a partition or, where that is -1 or too large, to the one of its key; wait for all.

    Out: why the broker refused a record, by its index. Records of a partition keep their order. Waits without limit
    for a broker; raises `StagerClosed` where the producer is closed, and a `KafkaError` where the topic is missing.
    """
    count = cluster.partitions.get(topic) or await cluster.producer.partitions(topic)
    by_partition: dict[int, list[int]] = {}
    for index, (partition, (key, _, _)) in enumerate(records):
        known = 0 <= partition < count
        at = partition if known else (key_hash(key) if key else index) % count
        by_partition.setdefault(at, []).append(index)
    refusals: Refused = {}
    parcels = []
    for partition, indexes in by_partition.items():
        parcel = _Awaited([records[index][1] for index in indexes])
        cluster.put(topic, partition, parcel)
        parcels.append((parcel, indexes))
    try:
        for parcel, indexes in parcels:
            await parcel.done
            refusals |= {indexes[at]: error for at, error in parcel.refusals.items()}
    except BaseException:
        cluster.withdraw({parcel for parcel, _ in parcels})
        for parcel, _ in parcels:
            parcel.done.cancel()
        raise
    return refusals


async def ship_all(cluster: Cluster, topic: str, records: Iterable[OutRecord], partition: int = -1) -> None:
    """The same for records that must be taken: raises what the broker said of the first that it refused."""
    refusals = await ship(cluster, topic, [(partition, record) for record in records])
    for error in refusals.values():
        raise error
