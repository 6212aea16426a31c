"""A benchmark's round counts only where everything arrived, once, unaltered and in order."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable

import pytest
from confluent_kafka import Producer

from benchmarks.load import event, staging_headers
from benchmarks.topics import Lost, Topics
from devtools.kafka import Brokers

pytestmark = pytest.mark.kafka
NUMBERS = range(3_000)


def in_order(numbers: range) -> Iterable[int]:
    """Everything, as staged."""
    return numbers


def one_lost(numbers: range) -> Iterable[int]:
    """One event never arrives."""
    return (number for number in numbers if number != 1_234)


def one_twice(numbers: range) -> Iterable[int]:
    """One event comes twice, and another not at all, so that their count is right."""
    return [*sorted({*numbers} - {1234} | {1235}), 1235]


def two_swapped(numbers: range) -> Iterable[int]:
    """Two events of one tenant change places."""
    swapped = {1_024: 2_048, 2_048: 1_024}
    return (swapped.get(number, number) for number in numbers)


@pytest.mark.parametrize("arrival", [one_lost, one_twice, two_swapped])
def test_a_wrong_round_fails(kafka: Brokers, arrival: Callable[[range], Iterable[int]]) -> None:
    """A round that lost, doubled or reordered an event has failed, however fast it was."""
    with pytest.raises(Lost):
        _verify(kafka, arrival)


def test_a_right_round_passes(kafka: Brokers) -> None:
    """What arrived as staged is accepted."""
    _verify(kafka, in_order)


def _verify(kafka: Brokers, arrival: Callable[[range], Iterable[int]]) -> None:
    topics, name = Topics(kafka.bootstrap), f"bench-{secrets.token_hex(4)}"
    topics.create([name], 1)
    before = topics.ends([name], 1)
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for one in map(event, arrival(NUMBERS)):
        producer.produce(name, one.payload, one.tenant, headers=[*staging_headers(one, "0")])
    producer.flush()
    topics.verify(before, topics.ends([name], 1), NUMBERS)
