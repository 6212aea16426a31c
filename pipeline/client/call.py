"""One event on its way to the staging topic, and whoever waits to hear what became of it.

Owns: the outcome of a call, and which error says what. Must not know: time limits, order, room.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

from catalog.policies import Outbox
from pipeline.client.acks import Acks
from pipeline.client.event import Event
from pipeline.client.metering import StageMeter
from pipeline.errors import ErrorClass, StagingRefused, StagingUnavailable, classify
from pipeline.kafka.lane import Lane, Parcel
from pipeline.packing import PACKED_OVERHEAD
from pipeline.tracing import StagedSpan
from pipeline.types import Staged

__all__ = ["Answer", "Call", "Outcome", "call_of", "failure_of"]


class Answer:
    """What one thread waits for: a lock, where a future of `concurrent.futures` has two and a condition, which take a
    seventh of the way there and back."""

    __slots__ = ("_error", "_given", "_staged")

    def __init__(self) -> None:
        self._staged: Staged | None = None
        self._error: Exception | None = None
        self._given = threading.Lock()
        self._given.acquire()

    def wait(self, limit_s: float) -> Staged:
        """Block until it is given. Raises what was given for an error, and `TimeoutError`."""
        if not self._given.acquire(timeout=limit_s):
            raise TimeoutError
        if self._error is not None:
            raise self._error
        assert self._staged is not None
        return self._staged

    def done(self) -> bool:
        """Whether it was given."""
        return self._staged is not None or self._error is not None

    def cancelled(self) -> bool:
        """Never: a thread waits until its time is up."""
        return False

    def set_result(self, staged: Staged) -> None:
        """The event is durable. To be called once."""
        self._staged = staged
        self._given.release()

    def set_exception(self, error: Exception) -> None:
        """It is not. To be called once."""
        self._error = error
        self._given.release()


_staged: Final[Callable[[tuple[object, ...]], Staged]] = partial(tuple.__new__, Staged)
"""Made of its fields. What a named tuple has for that takes twice as long."""
Outcome: TypeAlias = "asyncio.Future[Staged] | Answer"
"""What a task awaits, or a thread waits for. It is only ever set from the stager's event loop."""

_REFUSED: Final = frozenset({ErrorClass.AUTH, ErrorClass.TOPIC_NOT_FOUND})


class Call(Parcel):
    """One record, one outcome. `left_lane` is told when its lane no longer holds it, or `acks`, where it is
    acknowledged and its caller waits."""

    __slots__ = (
        "acks",
        "begun",
        "event_id",
        "key",
        "lane",
        "left_lane",
        "meter",
        "outbox",
        "outcome",
        "packed",
        "span",
        "stored",
    )

    def __init__(
        self,
        event_id: str,
        key: bytes,
        packed: bytes,
        outbox: Outbox,
        outcome: Outcome,
        left_lane: Callable[[Exception | None], None],
        span: StagedSpan | None = None,
    ) -> None:
        # As `Parcel.__init__` does, which would take a third of the time again.
        self.records = (packed,)
        self.deadline = None
        self.size = len(packed) + PACKED_OVERHEAD
        self.retries = self.taken = 0
        self.packed = packed
        """The staging record as a batch takes it (`pipeline.packing`)."""
        self.event_id = event_id
        self.key = key
        self.outbox = outbox
        self.outcome = outcome
        self.left_lane = left_lane
        self.lane: Lane | None = None
        """None while it is in no lane yet, or none any more."""
        self.meter: StageMeter | None = None
        """Counts how it fails; None: nobody does."""
        self.acks: Acks | None = None
        """Is told of the acknowledgement; None while it is not on its way."""
        self.span = span
        self.begun = 0.0
        """When, on the monotonic clock."""
        self.stored = False
        """Whether it was handed to the outbox."""

    def acked(self, first: int, count: int, offset: int) -> None:  # noqa: ARG002 -- one record
        """The event is durable."""
        lane, acks, outcome = self.lane, self.acks, self.outcome
        assert lane is not None
        assert acks is not None
        self.lane = None
        if outcome.done():
            self.left_lane(None)
            return
        acks.add(self.begun)
        outcome.set_result(_staged((self.event_id, "topic", lane.topic, lane.partition, offset, None)))
        if self.span is not None:
            self.span.end()

    def refused(self, index: int, error: BaseException) -> None:  # noqa: ARG002
        """The broker will never take it: a caller error, for its cause is one."""
        refusal = StagingRefused(self.event_id, classify(error), str(error))
        refusal.__cause__ = error
        self.fail(refusal)
        self.lane = None
        self.left_lane(None)

    def given_up(self, first: int, count: int, error: BaseException) -> None:  # noqa: ARG002
        """The delivery deadline passed, or the stager closed."""
        failure = failure_of(self.event_id, error, unknown=self.taken > 0)
        self.fail(failure)
        self.lane = None
        self.left_lane(failure)

    def answer(self, staged: Staged) -> None:
        """The event is durable, and counted: tell the caller, if nobody has told anything yet."""
        if not self.outcome.done():
            self.outcome.set_result(staged)
            self.end_span()

    def fail(self, error: Exception) -> None:
        """Answer the caller, if nobody has."""
        if not self.outcome.done():
            self.outcome.set_exception(error)
            if self.meter is not None:
                self.meter.failed(classify(error))
            self.end_span(error)

    def end_span(self, error: BaseException | None = None) -> None:
        """The call has ended, well or with this error; a cancelled one is told here."""
        if self.span is not None:
            self.span.end(error)


def call_of(event: Event, outcome: Outcome, left_lane: Callable[[Exception | None], None]) -> Call:
    """The call that makes a checked event durable."""
    return Call(event.id, event.key, event.packed, event.policy.outbox, outcome, left_lane, event.span)


def failure_of(event_id: str, error: BaseException, *, unknown: bool) -> Exception:
    """The error a caller sees for an event that is not staged: a refusal where the broker said no for good."""
    error_class = classify(error)
    if error_class in _REFUSED and not unknown:
        failure: Exception = StagingRefused(event_id, error_class, str(error))
    else:
        reason = str(error) or type(error).__name__
        failure = StagingUnavailable(event_id, error_class, reason, unknown=unknown)
    failure.__cause__ = error
    return failure
