"""The judge of services: what `stage()` said is held against the staging topic.

Owns: every call and its answer; nothing lost that was said to be durable (S2), call order per key (S6), the time a
call may take (S7), nothing twice without a fault. Must not know: how events get there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from catalog import OwnTopics
from pipeline.types import Staged
from tests.simulation.kafka_log import Log, Record
from tests.simulation.oracle import Violation

__all__ = ["Call", "StagingOracle"]

_GRACE_S = 0.1


@dataclass
class Call:
    """One call of `stage()`. `caller`: the process and key whose calls do not overlap; `number` counts them."""

    event_id: str
    caller: tuple[str, str]
    number: int
    answer: str = ""
    """`topic`, `outbox`, `absent`, `unknown`; empty while there is none."""
    in_order: bool = True
    """False for calls that S6 leaves out."""
    cancelled: bool = False
    """Its caller gave up: it may come twice (S7), but not late (S6)."""


class StagingOracle:
    """Told of every call, every answer and every record. `on_violation` is told what rule was broken."""

    def __init__(self, namespace: str, on_violation: Callable[[Violation], None]) -> None:
        self.staging = OwnTopics(namespace).staging
        self.calls: dict[str, Call] = {}
        self.doubles = 0
        self.exactly_once = False
        self.on_time = True
        """Whether nobody stops the machine meanwhile."""
        self._on_violation = on_violation
        self._at: dict[tuple[int, int], str] = {}
        self._first: dict[str, tuple[int, int]] = {}
        self._trace = hashlib.sha256()

    @property
    def digest(self) -> str:
        """What happened, in one word."""
        return self._trace.hexdigest()[:16]

    def appended(self, log: Log, records: list[Record]) -> None:
        """Records are on a topic."""
        if log.topic != self.staging:
            return
        for record in records:
            event_id = dict(record.headers)["stage-id"].decode()  # type: ignore[union-attr]
            self._trace.update(f"{event_id}@{log.partition}/{record.offset}".encode())
            self._at[log.partition, record.offset] = event_id
            call = self.calls.get(event_id)
            if call is None:
                self._broken(f"{event_id} is on the staging topic, and nobody staged it")
            elif call.answer == "absent":
                self._broken(
                    f"S7: {event_id} is on the staging topic, and its caller was told that it is not"
                )
            if event_id in self._first:
                self.doubles += 1
                if self.exactly_once and not (call is not None and call.cancelled):
                    self._broken(f"{event_id} is twice on the staging topic, and nothing had failed")
            self._first.setdefault(event_id, (log.partition, record.offset))

    def committed(self, topic: str, partition: int, offset: int) -> None:
        """Nobody consumes here."""

    def called(self, call: Call) -> None:
        """`stage()` is called."""
        self.calls[call.event_id] = call

    def durable(self, call: Call, staged: Staged) -> None:
        """It returned."""
        call.answer = staged.via
        self._trace.update(f"{call.event_id}:{staged.via}".encode())
        if staged.via == "topic" and staged.offset is not None and staged.offset >= 0:
            assert staged.partition is not None
            if self._at.get((staged.partition, staged.offset)) != call.event_id:
                self._broken(f"S2: {call.event_id} is not at {staged}")
        elif staged.via == "topic" and call.event_id not in self._first:
            self._broken(f"S2: {call.event_id} is not on the staging topic")

    def cancelled(self, call: Call) -> None:
        """Its caller gave up: nobody knows what has become of it."""
        call.answer = "unknown"
        call.cancelled = True
        self._trace.update(f"{call.event_id}:cancelled".encode())

    def raised(self, call: Call, *, unknown: bool) -> None:
        """It raised."""
        call.answer = "unknown" if unknown else "absent"
        if self.exactly_once and call.in_order and not unknown:
            self._broken(f"S2: {call.event_id} was not staged, and nothing had failed")
        call.in_order = False
        self._trace.update(f"{call.event_id}:{call.answer}".encode())
        if not unknown and call.event_id in self._first:
            self._broken(
                f"S7: {call.event_id} is on the staging topic, and its caller was told that it is not"
            )

    def took(self, call: Call, seconds: float, limit_s: float) -> None:
        """How long the call took."""
        if self.on_time and seconds > limit_s + _GRACE_S:
            self._broken(f"S7: {call.event_id} was decided after {seconds:.2f} s")

    def closed(self, name: str, seconds: float, limit_s: float) -> None:
        """How long `close()` took."""
        if self.on_time and seconds > limit_s + _GRACE_S:
            self._broken(f"S9: {name} took {seconds:.2f} s to close")

    @property
    def missing(self) -> list[str]:
        """Events that are durable by their caller's answer, and not on the staging topic."""
        return [
            call.event_id
            for call in self.calls.values()
            if call.answer in ("topic", "outbox") and call.event_id not in self._first
        ]

    def check_order(self) -> None:
        """S6, at the end, when it is known which calls count."""
        last: dict[tuple[str, str], Call] = {}
        for (
            event_id
        ) in self._first:  # in the order of their first coming; keys of one caller share a partition
            call = self.calls[event_id]
            if not call.in_order:
                continue
            before = last.get(call.caller)
            if before is not None and before.number > call.number:
                self._broken(f"S6: {event_id} came after {before.event_id}")
            last[call.caller] = call

    def _broken(self, what: str) -> None:
        self._on_violation(Violation(what))
