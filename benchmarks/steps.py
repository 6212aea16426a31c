"""What single steps of the worker's way cost, without a broker: `python -m benchmarks.steps`.

Owns: a fetched list made of staging records, and the steps from its bytes to the bytes of a produce request. Prints
CPU microseconds an event, the least of many repetitions: it tells which change helps also on a busy machine. As
many lists are held at once as a worker has under way, so that Python's garbage collector finds as much.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.structs import TopicPartition

from benchmarks.load import PARTITIONS, catalog, event, staging_headers
from pipeline.checks import Limits
from pipeline.kafka.encoding import Identity, encode
from pipeline.kafka.lane import Lane, Parcel
from pipeline.kafka.reading import hand_out_as_parsed, read_any_header_name
from pipeline.plan import Plan, plan
from pipeline.routes import Router

_LIST = 500
_LISTS = 60
_REPEAT = 15
_SHORT = 300
_IDENTITY = Identity(1, 0)


class _Silent(Parcel):
    """A parcel that nobody asks about."""

    def acked(self, first: int, count: int, offset: int) -> None:
        """Nothing to do."""


def _fetched() -> bytes:
    """One fetched record batch of a staging partition, as it comes from a broker."""
    fingerprint = catalog("bench").fingerprint
    ours = [one for one in map(event, range(_LIST * 8)) if one.number % PARTITIONS == 0][:_LIST]
    records = [(one.tenant.encode(), one.payload, staging_headers(one, fingerprint)) for one in ours]
    return bytes(encode(records, "lz4", _IDENTITY, 0, 1_700_000_000_000))


def _parse(data: bytes) -> list[Any]:
    at = TopicPartition("staging", 0)
    return list(fetcher.PartitionRecords(at, fetcher.MemoryRecords(data), [], 0, None, None, True, 0))


def _send(lanes: dict[tuple[str, int], Lane], outcome: Plan) -> None:
    """Everything the producer does with a planned list but the sockets."""
    for at, column in outcome.columns.items():
        lane = lanes.get(at)
        if lane is None:
            lane = lanes[at] = Lane(*at)
        lane.put(_Silent(column.records, size=column.size))
    for lane in lanes.values():
        while lane.waiting:
            lane.prepare(_IDENTITY, 1_048_576, "lz4", 1_700_000_000_000)
            lane.succeeded(0)


def _best(step: Callable[[], object], events: int = _LIST, times: int = _SHORT) -> float:
    least = float("inf")
    for _ in range(times):
        began = time.process_time()
        step()
        least = min(least, time.process_time() - began)
    return least / events * 1e6


def _steps() -> Iterator[tuple[str, float]]:
    read_any_header_name()
    hand_out_as_parsed("staging")
    data = _fetched()
    flights = catalog("bench")
    router = Router(flights, dialect="ce_", type_prefix="bench")
    partitions = dict.fromkeys(flights.topics, PARTITIONS)
    limits = Limits(1_000_000, 1_040_000)
    lanes: dict[tuple[str, int], Lane] = {}
    parsed = _parse(data)

    def decide(records: list[Any]) -> Plan:
        return plan(records, router, partitions, limits)

    planned = decide(parsed)

    def whole() -> None:
        held: deque[object] = deque(maxlen=_LISTS)
        for _ in range(_LISTS):
            records = _parse(data)
            outcome = decide(records)
            _send(lanes, outcome)
            held.append((records, outcome))

    yield "parse a fetched list", _best(lambda: _parse(data))
    yield "plan it", _best(lambda: decide(parsed))
    yield "encode and compress it", _best(partial(_send, lanes, planned))
    yield f"all of it, {_LISTS} lists held", _best(whole, _LIST * _LISTS, _REPEAT)


def main() -> None:
    """Print a table."""
    lines = ["| step | CPU µs/event |", "|---|---|"]
    lines += [f"| {name} | {us:.2f} |" for name, us in _steps()]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
