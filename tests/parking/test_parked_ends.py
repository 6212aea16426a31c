"""When a record that is parked has ended: the parked topic has it, and said so."""

from __future__ import annotations

from typing import cast

import pytest

from catalog import OwnTopics
from pipeline.errors import StagerClosed
from pipeline.kafka.cluster import Cluster
from pipeline.kafka.lane import Parcel
from pipeline.meter import Meter
from pipeline.metrics import Metrics
from pipeline.park import Checkpoint
from pipeline.parking.backlog import Partition, Stray
from pipeline.parking.store import Store
from pipeline.parking.sweep import ParkedRecord
from pipeline.testing import SteppingClock
from pipeline.tracing import delivery_spans


class _Own:
    """Keeps what is handed to it."""

    def __init__(self) -> None:
        self.parcels: list[Parcel] = []

    def put(self, topic: str, partition: int, parcel: Parcel) -> None:
        assert (topic, partition) == ("shop.parked", 3)
        self.parcels.append(parcel)


@pytest.mark.parametrize("offset", [40, -1])
async def test_only_an_acknowledgement_ends_it(offset: int) -> None:
    """T6: what is to be parked has not ended before the parked topic acknowledged it, and does not where the worker
    gives it up: its staging offset must not be committed. A batch may be acknowledged in parts."""
    clock, own, ended = SteppingClock(), _Own(), list[int]()
    meter = Meter(Metrics(), clock, delivery_spans())

    async def trim(*_: object) -> None:
        raise AssertionError

    store = Store(cast("Cluster", own), OwnTopics("shop"), clock, trim, meter)
    partition = Partition(3, Checkpoint(40, {}), parks_unknown=True)
    backlog = partition.open("shop.order", "down")
    records = [ParkedRecord(number, 0, b"k", b"v", []) for number in range(5)]
    store.park(partition, backlog, Stray(records, ended.append, lambda: None))
    (parcel,) = own.parcels
    assert (ended, backlog.under_way, backlog.records) == ([], 5, 0)
    parcel.acked(0, 3, offset)
    assert (ended, backlog.under_way, backlog.records) == ([3], 2, 3)
    parcel.given_up(3, 2, StagerClosed())
    assert (ended, backlog.under_way, backlog.records) == ([3], 2, 3)
    assert partition.low() == 40
