"""Events to stage: sound ones, and those that must end elsewhere.

Owns: what each kind looks like and where it must end. Must not know: how it gets there.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from pipeline.kafka.encoding import Identity, encode
from pipeline.partition import partition_of
from pipeline.record import OutRecord
from tests.simulation.kafka_log import Log
from tests.simulation.oracle import Event, Oracle

__all__ = ["CATALOG", "NAMESPACE", "TARGETS", "TOO_LARGE_FOR", "Stream"]

CATALOG = "tests.catalogs.shop"
NAMESPACE = "sim"
TOO_LARGE_FOR = "sim.parcel.lost"
"""A target that takes small records only."""
SMALL_LIMIT_BYTES = 2_000
_LARGE = 3_000
_KEYS = tuple(f"tenant-{number}" for number in range(5))
TARGETS = ("sim.order.created", "sim.order.paid", TOO_LARGE_FOR)
_NOBODY = Identity(-1, -1)


class _Kind(NamedTuple):
    definition: str
    value: bytes
    end: str
    without: str = ""


_SOUND = (
    _Kind("order.created", b"{}", TARGETS[0]),
    _Kind("order.paid", b'{"cents": 5}', TARGETS[1]),
    _Kind("parcel.lost", b"somewhere", TARGETS[2]),
)
_BAD = (
    _Kind("order.paid", b'{"cents": "five"}', "sim.order.paid.dlq"),
    _Kind("order.created", b"{}", "sim.order.created.dlq", without="stage-time"),
    _Kind("hint.given", b"not json", "sim.audit"),
    _Kind("parcel.lost", random.Random(0).randbytes(_LARGE), "sim.parcel.lost.dlq"),
)


class Stream:
    """Events as some producer in another language stages them: straight into the log, one batch at a time."""

    def __init__(self, chance: random.Random, oracle: Oracle) -> None:
        self._chance = chance
        self._oracle = oracle
        self._number = 0

    def stage(self, logs: list[Log], count: int, share_of_bad: float) -> None:
        """Append `count` events, grouped into a batch for each partition."""
        batches: dict[int, list[OutRecord]] = {}
        for _ in range(count):
            key, record = self._event(share_of_bad)
            batches.setdefault(partition_of(key, len(logs)), []).append(record)
        for partition, records in batches.items():
            log = logs[partition]
            if self._chance.random() < 0.1:
                log.end += self._chance.randint(1, 3)  # markers of transactions, or compacted away
            log.append(bytes(encode(records, "none", _NOBODY, -1, 1_700_000_000_000)), 1 << 30)

    def _event(self, share_of_bad: float) -> tuple[bytes, OutRecord]:
        kind = self._chance.choice(_BAD if self._chance.random() < share_of_bad else _SOUND)
        self._number += 1
        event_id = f"e{self._number}"
        key = self._chance.choice(_KEYS).encode()
        fields = {
            "stage-version": b"1",
            "stage-definition": kind.definition.encode(),
            "stage-id": event_id.encode(),
            "stage-time": b"2026-01-02T03:04:05Z",
            "stage-source": b"//shop/web",
            "stage-tenant": key,
        }
        fields.pop(kind.without, None)
        value = kind.value if len(kind.value) > 100 or kind in _BAD else kind.value.replace(b"}", b" }")
        self._oracle.events[event_id] = Event(event_id, kind.end, value)
        return key, (key, value, list(fields.items()))
