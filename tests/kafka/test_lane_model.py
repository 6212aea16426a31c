"""A lane against a model of a broker's partition: random parcels, answers, losses, deadlines, withdrawals."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

import pytest
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.kafka.encoding import Identity
from pipeline.kafka.lane import Batch, Lane, Parcel

_LIMIT_BYTES = 260
"""Eight small records, or two with a large one."""
_SMALL, _LARGE = 8, 150
_CULPRIT = b"!"
_FATES = st.sampled_from(["answered", "answered", "answered", "lost", "forgotten"])


@dataclass
class _Known:
    """What a broker remembers of a producer: the next sequence number and its last five batches (KIP-98)."""

    next_sequence: int = 0
    batches: deque[tuple[int, list[bytes], int]] = field(default_factory=lambda: deque(maxlen=5))


@dataclass(frozen=True)
class _Answer:
    """A broker's answer: `appended` at an offset, `repeated`, `refused` or `lost place`."""

    what: str
    offset: int = -1


class _BrokerPartition:
    """Appends record batches as Kafka does for idempotent producers."""

    def __init__(self) -> None:
        self.log: list[bytes] = []
        self._known: dict[Identity, _Known] = {}
        self._confused: set[Identity] = set()
        self.takes_large = True

    def confuse(self) -> None:
        """Lose track of every producer so far: each of their next batches is out of sequence."""
        self._confused |= set(self._known)

    def append(self, data: bytes) -> _Answer:
        """Take a batch as it came over the wire."""
        batch = MemoryRecords(data).next_batch()
        values = [record.value for record in batch]
        identity = Identity(batch.producer_id, batch.producer_epoch)
        if any(
            value.startswith(_CULPRIT) or (len(value) == _LARGE and not self.takes_large) for value in values
        ):
            return _Answer("refused")
        known = self._known.setdefault(identity, _Known())
        for first, cached, offset in known.batches:
            if (first, len(cached)) == (batch.base_sequence, len(values)):
                assert cached == values, "a new batch was taken for one that is there: its records are lost"
                return _Answer("appended", offset)
        if identity in self._confused:
            return _Answer("lost place")
        if batch.base_sequence < known.next_sequence:
            return _Answer("repeated")
        assert batch.base_sequence == known.next_sequence, "a gap in the sequence numbers of one producer id"
        offset = len(self.log)
        self.log += values
        known.batches.append((batch.base_sequence, values, offset))
        known.next_sequence += len(values)
        return _Answer("appended", offset)


class _Noting(Parcel):
    """A parcel that checks what it is told against the partition, and notes it."""

    __slots__ = ("_machine", "ends", "first", "values")

    def __init__(self, machine: LaneMachine, first: int, values: list[bytes], deadline: float | None) -> None:
        super().__init__([(None, value, []) for value in values], deadline)
        self._machine = machine
        self.first = first
        """Of all records that were ever put, the number of this parcel's first."""
        self.values = values
        self.ends: dict[int, str] = {}

    def end(self, index: int, how: str) -> None:
        """Note the end of a record: there is one."""
        assert index not in self.ends, f"record {index} ended as {self.ends[index]} and as {how}"
        self.ends[index] = how

    def acked(self, first: int, count: int, offset: int) -> None:
        """The records are where the lane says they are."""
        log = self._machine.broker.log
        for index in range(first, first + count):
            self.end(index, "acked")
            if offset >= 0:
                assert log[offset + index - first] == self.values[index]
            assert self.values[index] in log

    def refused(self, index: int, error: BaseException) -> None:  # noqa: ARG002
        """Only a culprit is refused."""
        self.end(index, "refused")
        value = self.values[index]
        assert value.startswith(_CULPRIT) or len(value) == _LARGE, (
            "a neighbour of a refused record was harmed"
        )

    def given_up(self, first: int, count: int, error: BaseException) -> None:  # noqa: ARG002
        """Only what is overdue is given up; what was not taken is not on the topic."""
        machine = self._machine
        assert machine.closing or (self.deadline is not None and self.deadline <= machine.now)
        for index in range(first, first + count):
            self.end(index, "given up")
            if index >= self.taken:
                machine.absent.add(self.values[index])


class LaneMachine(RuleBasedStateMachine):
    """The lane, its producer and the broker, one step at a time."""

    @initialize()
    def begin(self) -> None:
        """An empty partition."""
        self.broker = _BrokerPartition()
        self.lane = Lane("t", 0)
        self.now = 0.0
        self.closing = False
        self.shared = Identity(1, 0)
        self.parcels: list[_Noting] = []
        self.requests: list[tuple[Batch, bytes]] = []
        """Under way: at most one of the unresolved batch, and of others that were broken up meanwhile."""
        self.in_the_wind: list[bytes] = []
        """Requests without an answer that the broker may still come to read."""
        self.absent: set[bytes] = set()
        """What must never be on the topic."""
        self.exactly_once = True
        """Whether nothing has happened yet after which a record may be there twice."""

    # --- what callers do

    @rule(
        records=st.lists(st.sampled_from(["small"] * 5 + ["large", "culprit"]), min_size=1, max_size=6),
        patience=st.sampled_from([None, None, 1.0, 3.0, 10.0]),
    )
    def put(self, records: list[str], patience: float | None) -> None:
        """Put a parcel; deadlines come in any order, and not every parcel has one."""
        first = sum(len(parcel.values) for parcel in self.parcels)
        values = [self._value(first + index, kind) for index, kind in enumerate(records)]
        parcel = _Noting(self, first, values, None if patience is None else self.now + patience)
        self.parcels.append(parcel)
        self.lane.put(parcel)

    def _some(self, which: int) -> _Noting | None:
        """One of the parcels that have not ended."""
        waiting = [parcel for parcel in self.parcels if len(parcel.ends) < len(parcel.values)]
        return waiting[which % len(waiting)] if waiting else None

    @staticmethod
    def _value(number: int, kind: str) -> bytes:
        size = _LARGE if kind == "large" else _SMALL
        return (_CULPRIT if kind == "culprit" else b"") + str(number).encode().ljust(size, b".")

    @rule(which=st.integers(0, 5))
    def withdraw(self, which: int) -> None:
        """Take one parcel back: where that works, nothing of it is ever on the topic."""
        parcel = self._some(which)
        if parcel is not None and self.lane.withdraw(parcel):
            for index, value in enumerate(parcel.values):
                parcel.end(index, "withdrawn")
                self.absent.add(value)

    @rule(which=st.integers(0, 5))
    def drop(self, which: int) -> None:
        """Take a parcel back, whatever has become of it."""
        parcel = self._some(which)
        if parcel is not None:
            self._allow_repeats_if_broken_up({parcel})
            self.lane.drop({parcel})
            for index in range(len(parcel.values)):
                if index not in parcel.ends:
                    parcel.end(index, "dropped")

    @rule(really=st.integers(0, 3))
    def evict(self, really: int) -> None:
        """Take everything out: what is returned is what waits, in order; what was not taken is not on the topic."""
        if really == 0:
            waiting = [parcel for parcel in self.parcels if len(parcel.ends) < len(parcel.values)]
            self._allow_repeats_if_broken_up(set(waiting))
            assert self.lane.evict() == waiting
            for parcel in waiting:
                for index, value in enumerate(parcel.values):
                    if index not in parcel.ends:
                        parcel.end(index, "dropped")
                        if index >= parcel.taken:
                            self.absent.add(value)

    def _allow_repeats_if_broken_up(self, gone: set[_Noting]) -> None:
        batch = self.lane.batch
        if batch is not None and any(parcel in gone for parcel, _, _ in batch.spans):
            self.exactly_once = False

    # --- what the producer does

    @precondition(lambda self: self.lane.waiting and not self.lane.in_flight)
    @rule()
    def send(self) -> None:
        """Prepare a batch, as the producer does, once its pause is over, and put it on the wire."""
        if not self.lane.is_ready(self.now):
            self.wait(self.lane.retry_at - self.now)
            if not self.lane.waiting:
                return
        identity = self.lane.identity or self.shared
        if identity == self.lane.spent:
            identity = self.shared = Identity(self.shared.producer_id + 1, 0)
        before = self.lane.batch
        batch = self.lane.prepare(identity, _LIMIT_BYTES, "none", 1_700_000_000_000)
        assert before is None or before is batch, "a second batch while one was unresolved"
        self.lane.in_flight = True
        self.requests.append((batch, bytes(batch.data)))

    @precondition(lambda self: self.lane.waiting and not self.lane.in_flight)
    @rule(fate=_FATES)
    def send_and_arrive(self, fate: str) -> None:
        """Both, with nothing in between."""
        self.send()
        if self.lane.in_flight:
            self.arrives(fate, -1)

    @precondition(lambda self: self.requests)
    @rule(fate=_FATES, which=st.integers(-3, -1))
    def arrives(self, fate: str, which: int) -> None:
        """The broker reads the batch; its answer may get lost, or come when nobody wants it."""
        if fate == "forgotten":
            self.broker.confuse()
        batch, data = self.requests.pop(max(which, -len(self.requests)))
        answer = self.broker.append(data)
        if self.lane.batch is not batch:
            return
        if fate == "lost":
            self.lane.failed(TimeoutError("the answer was lost"), self.now, in_doubt=True)
        elif answer.what == "appended":
            self.lane.succeeded(answer.offset)
        elif answer.what == "repeated":
            assert batch.in_doubt, "a sequence number was used twice"
            self.lane.succeeded(-1)
        elif answer.what == "refused":
            self.exactly_once = self.exactly_once and not batch.in_doubt
            self.lane.refused(ValueError("too large"), self.now)
        else:
            self.exactly_once = False
            self.lane.out_of_sequence(ValueError("out of order"), self.now)

    @precondition(lambda self: self.requests)
    @rule(in_doubt=st.booleans(), which=st.integers(-3, -1))
    def fails(self, in_doubt: bool, which: int) -> None:
        """The request fails: certainly nothing was sent, or it is lost on the way and may come late."""
        batch, data = self.requests.pop(max(which, -len(self.requests)))
        if in_doubt:
            self.in_the_wind.append(data)
        if self.lane.batch is batch:
            self.lane.failed(ConnectionError("no answer"), self.now, in_doubt=in_doubt)

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0]))
    def wait(self, seconds: float) -> None:
        """Time passes; what is overdue is given up."""
        self.now += seconds
        if self.lane.deadline is not None and self.now >= self.lane.deadline:
            overdue = {p for p in self.parcels if p.deadline is not None and p.deadline <= self.now}
            self._allow_repeats_if_broken_up(overdue)
            self.lane.expire(self.now, TimeoutError("overdue"))

    # --- what brokers do

    @precondition(lambda self: self.in_the_wind)
    @rule()
    def late_arrival(self) -> None:
        """A broker that hung reads what was sent to it long ago."""
        self.broker.append(self.in_the_wind.pop(0))

    @rule()
    def limit_changes(self) -> None:
        """The topic's limit is lowered, or raised again: what was taken before may be refused now."""
        self.broker.takes_large = not self.broker.takes_large

    # --- what holds

    @invariant()
    def waiting_is_exact(self) -> None:
        """T5: what has not ended is waiting, and nothing else."""
        left = sum(len(parcel.values) - len(parcel.ends) for parcel in self.parcels)
        assert self.lane.waiting == left

    @invariant()
    def nothing_overdue_is_forgotten(self) -> None:
        """S7: there is a time at which what has a deadline is looked at, soon after it."""
        deadlines = [
            p.deadline for p in self.parcels if len(p.ends) < len(p.values) and p.deadline is not None
        ]
        if deadlines:
            assert self.lane.deadline is not None
            assert self.lane.deadline <= max(min(deadlines), self.now) + 0.1

    @invariant()
    def order_is_put_order(self) -> None:
        """T5: first deliveries never overtake; nothing is there twice unless a batch was broken up."""
        log = self.broker.log
        firsts = list(dict.fromkeys(log))
        kept = [value for value in firsts if self._fate(value) in (None, "acked")]
        numbers = [int(value.strip(b".")) for value in kept]
        assert numbers == sorted(numbers)
        assert len(firsts) == len(log) or not self.exactly_once
        assert not self.absent & set(log), "on the topic although it was said not to be"

    def _fate(self, value: bytes) -> str | None:
        number = int(value.strip(b"."))
        parcel = next(p for p in reversed(self.parcels) if p.first <= number)
        return parcel.ends.get(number - parcel.first)

    def teardown(self) -> None:
        """T5: with a broker that answers, every record ends; nothing is left in the lane. Else, `empty` ends all."""
        if not hasattr(self, "lane"):
            return
        while self.requests:
            self.fails(in_doubt=True, which=-1)
        if len(self.parcels) % 3:
            for _ in range(10 + 2 * self.lane.waiting):  # halving n records takes 2n - 1 attempts
                if self.lane.waiting:
                    self.send_and_arrive("answered")
            assert not self.lane.waiting, "the lane is stuck"
        self.closing = True
        self.lane.empty(ValueError("closed"))
        self.waiting_is_exact()
        self.order_is_put_order()
        assert all(len(parcel.ends) == len(parcel.values) for parcel in self.parcels)
        assert not self.lane._queue
        assert not self.lane._again
        assert self.lane.batch is None
        assert not self.lane.in_flight


TestLaneAgainstAPartition = LaneMachine.TestCase
TestLaneAgainstAPartition.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)


def _step(machine: LaneMachine, chance: random.Random) -> None:
    """One step, chosen so that most schedules reach what takes several steps in a row."""
    fate = chance.choice(["answered", "answered", "answered", "lost", "forgotten"])
    which = chance.randint(-3, -1)
    may_send = machine.lane.waiting and not machine.lane.in_flight
    match chance.choice("ppssssaaaafdwtle" if chance.random() < 0.97 else "ce"):
        case "p":
            kinds = chance.choices(["small", "large", "culprit"], [10, 1, 1], k=chance.randint(1, 4))
            machine.put(kinds, chance.choice([None, None, 1.0, 3.0, 10.0]))
        case "s" if may_send:
            machine.send()
        case "a" if machine.requests:
            machine.arrives(fate, which)
        case "f" if machine.requests:
            machine.fails(chance.random() < 0.5, which)
        case "d":
            machine.drop(chance.randint(0, 5))
        case "w":
            machine.withdraw(chance.randint(0, 5))
        case "t":
            machine.wait(chance.choice([0.1, 1.0, 3.0]))
        case "l" if machine.in_the_wind:
            machine.late_arrival()
        case "c":
            machine.limit_changes()
        case "e":
            machine.evict(chance.randint(0, 3))


@pytest.mark.parametrize("seeds", [range(1_500), pytest.param(range(1_500, 50_000), marks=pytest.mark.long)])
def test_seeded_schedules(seeds: range) -> None:
    """T5: the same, many times as many steps in the same time; a failure names its seed."""
    for seed in seeds:
        machine, chance = LaneMachine(), random.Random(seed)
        machine.begin()
        try:
            for _ in range(60):
                _step(machine, chance)
                machine.waiting_is_exact()
                machine.nothing_overdue_is_forgotten()
                machine.order_is_put_order()
            machine.teardown()
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
