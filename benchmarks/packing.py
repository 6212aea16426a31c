"""Fetched records into record batches per target: the work that every batching way does on each record.

Pure but for the clock that a batch builder reads. Must not know where records come from or how they leave.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Protocol

import aiokafka
from aiokafka.partitioner import murmur2
from aiokafka.producer.message_accumulator import BatchBuilder

from benchmarks.load import PARTITIONS, TARGETS, Framed, Headers, frame


class Record(Protocol):
    """What a way needs of a record: aiokafka's ConsumerRecord and Faust's Message both have it."""

    key: bytes
    value: bytes
    headers: Headers
    partition: int


Packed = list[tuple[tuple[str, int], BatchBuilder]]
Pack = Callable[[aiokafka.AIOKafkaProducer, Iterable[Record]], Packed]


def partition_of(key: bytes) -> int:
    """Kafka's default partition of a key (T4)."""
    return int((murmur2(key) & 0x7FFFFFFF) % PARTITIONS)


class PartitionCache(dict[bytes, int]):
    """Key to partition, hashed once. Unbounded: the load has a thousand keys."""

    def __missing__(self, key: bytes) -> int:
        partition = self[key] = partition_of(key)
        return partition


def _reopen(
    producer: aiokafka.AIOKafkaProducer,
    builders: dict[tuple[str, int], BatchBuilder],
    full: Packed,
    target: tuple[str, int],
    record: Record,
    headers: list[tuple[str, bytes]],
) -> None:
    """The uncommon cases of an append: the first record of a batch, or one that no longer fits."""
    if target in builders:
        full.append((target, builders[target]))
    builder = builders[target] = producer.create_batch()
    builder.append(timestamp=None, key=record.key, value=record.value, headers=headers)


def pack_copied(producer: aiokafka.AIOKafkaProducer, records: Iterable[Record]) -> Packed:
    """Batches per target; headers are copied and the staging partition is the target's partition."""
    builders: dict[tuple[str, int], BatchBuilder] = {}
    full: Packed = []
    for record in records:
        headers = list(record.headers)
        target = (TARGETS[headers[1][1]].topic, record.partition)
        builder = builders.get(target)
        if builder is None or not builder.append(
            timestamp=None, key=record.key, value=record.value, headers=headers
        ):
            _reopen(producer, builders, full, target, record, headers)
    return full + list(builders.items())


def pack_framed(
    producer: aiokafka.AIOKafkaProducer,
    records: Iterable[Record],
    *,
    framing: Callable[[Headers], Framed],
    partition: Callable[[bytes], int],
) -> Packed:
    """Batches per target, each record framed as a CloudEvent and partitioned by its tenant."""
    builders: dict[tuple[str, int], BatchBuilder] = {}
    full: Packed = []
    for record in records:
        topic, tenant, headers = framing(record.headers)
        target = (topic, partition(tenant))
        builder = builders.get(target)
        if builder is None or not builder.append(
            timestamp=None, key=tenant, value=record.value, headers=headers
        ):
            _reopen(producer, builders, full, target, record, headers)
    return full + list(builders.items())


def framed(framing: Callable[[Headers], Framed] = frame, *, cached: bool = True) -> Pack:
    """`pack_framed` with its choices made."""
    partition = PartitionCache().__getitem__ if cached else partition_of
    return functools.partial(pack_framed, framing=framing, partition=partition)
