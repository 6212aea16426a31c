"""A steady stream of staging records, made beforehand: `python -m benchmarks.ways.stream SERVERS NAMESPACE RATE`.

Sends RATE records a second until it is ended, as a producer with 5 ms of linger would: a batch for each partition, all
of one broker in one request. Batches are encoded before the first is sent, and used again and again, so that the stream
takes less than a tenth of a core: what it takes is missing to those who are measured. It does not wait for answers.
Ends with a traceback where a broker refuses a batch.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections import defaultdict
from collections.abc import Iterator

from aiokafka import TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.produce import ProduceRequest

from benchmarks.load import PARTITIONS, catalog, event, staging_headers
from pipeline.kafka.encoding import Identity, encode
from pipeline.partition import partition_of
from pipeline.record import OutRecord

_LINGER_S = 0.005
_TURNS = 16
"""So many different batches of each partition."""
_NOBODY = Identity(-1, -1)
_TIMEOUT_MS = 10_000

Turn = list[tuple[int, ProduceRequest]]
"""The requests of one turn, each with the broker it goes to."""


def _batches(namespace: str, size: int) -> Iterator[list[bytes]]:
    """For each turn a batch of each partition, of `size` records."""
    fingerprint = catalog(namespace).fingerprint
    numbers = itertools.count()
    waiting: dict[int, list[OutRecord]] = {partition: [] for partition in range(PARTITIONS)}
    for _ in range(_TURNS):
        while min(map(len, waiting.values())) < size:
            one = event(next(numbers))
            key = one.tenant.encode()
            waiting[partition_of(key, PARTITIONS)].append(
                (key, one.payload, staging_headers(one, fingerprint))
            )
        now_ms = int(time.time() * 1_000)
        yield [encode(records[:size], "lz4", _NOBODY, -1, now_ms) for records in waiting.values()]
        for records in waiting.values():
            del records[:size]


def _requests(client: AIOKafkaClient, topic: str, batches: list[bytes]) -> Turn:
    """The requests that carry these batches, one for each broker."""
    of: defaultdict[int, list[tuple[int, bytes]]] = defaultdict(list)
    for partition, data in enumerate(batches):
        of[client.cluster.leader_for_partition(TopicPartition(topic, partition))].append((partition, data))
    return [
        (
            node,
            ProduceRequest(
                transactional_id=None, required_acks=-1, timeout=_TIMEOUT_MS, topics=[(topic, partitions)]
            ),
        )
        for node, partitions in of.items()
    ]


async def _send(client: AIOKafkaClient, node: int, request: ProduceRequest) -> None:
    answer = await client.send(node, request)
    for topic, partitions in answer.topics:
        for partition, code, *_ in partitions:
            if code:
                raise kafka_errors.for_code(code)(f"{topic}-{partition}")


async def _main(servers: str, namespace: str, rate: float) -> None:
    client, topic = AIOKafkaClient(bootstrap_servers=servers), f"{namespace}.staging"
    await client.bootstrap()
    await client.set_topics([topic])
    size = max(1, round(rate * _LINGER_S / PARTITIONS))
    turns = [_requests(client, topic, batches) for batches in _batches(namespace, size)]
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number, requests in enumerate(itertools.cycle(turns)):
            await asyncio.sleep(began + number * size * PARTITIONS / rate - time.monotonic())
            for node, request in requests:
                group.create_task(_send(client, node, request))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
