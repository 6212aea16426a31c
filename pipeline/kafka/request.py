"""A produce request, and what a broker's answer to one of its batches means for the lane. Pure.

Owns: Kafka's error codes where they decide what is sent next (https://kafka.apache.org/protocol#protocol_error_codes).
Must not know: connections, tasks. The clock is handed in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from aiokafka import errors as kafka_errors
from aiokafka.protocol.api import Response
from aiokafka.protocol.produce import ProduceRequest

from pipeline.errors import Verdict, classify, verdict_of
from pipeline.kafka.batch import Batch
from pipeline.kafka.lane import Lane

__all__ = ["Sent", "carry", "empty_request", "produce_request", "refusal_of"]

Sent = Mapping[tuple[str, int], tuple[Lane, Batch]]
"""What a request holds, by topic and partition."""

_NO_ERROR, _DUPLICATE_SEQUENCE = 0, 46
_LOST_SEQUENCE = frozenset({45, _DUPLICATE_SEQUENCE, 47, 49, 59, 90})
"""OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH, INVALID_PRODUCER_ID_MAPPING, UNKNOWN_PRODUCER_ID,
PRODUCER_FENCED; and a duplicate of what was never sent."""
_EMPTY = frozenset({_NO_ERROR, 2, 87})
"""CORRUPT_MESSAGE, INVALID_RECORD: what is left to say of a request in which all but the records is right."""
_NOT_APPENDED = frozenset({3, 17, 19, 29, 31})
"""UNKNOWN_TOPIC_OR_PARTITION, INVALID_TOPIC_EXCEPTION, NOT_ENOUGH_REPLICAS, TOPIC_ and
CLUSTER_AUTHORIZATION_FAILED. Others may come after appending: a leader that steps down while it waits for its
followers answers NOT_LEADER_OR_FOLLOWER."""


def produce_request(batches: Iterable[tuple[Lane, Batch]], timeout_s: float) -> ProduceRequest:
    """The request, acks=all; the broker waits for its followers for at most `timeout_s`."""
    topics: defaultdict[str, list[tuple[int, bytes | bytearray]]] = defaultdict(list)
    for lane, batch in batches:
        topics[lane.topic].append((lane.partition, batch.data))
    return ProduceRequest(
        transactional_id=None, required_acks=-1, timeout=int(timeout_s * 1000), topics=list(topics.items())
    )


def empty_request(topic: str, partition: int) -> ProduceRequest:
    """A request without a record: the leader looks at everything else, and then refuses it for being empty."""
    return ProduceRequest(
        transactional_id=None, required_acks=-1, timeout=1_000, topics=[(topic, [(partition, b"")])]
    )


def refusal_of(response: Response) -> None:
    """Raise the `KafkaError` with which an empty request was refused, if it was for anything but being empty."""
    for topic, partitions in response.topics:
        for partition, code, *_ in partitions:
            if code not in _EMPTY:
                error: kafka_errors.KafkaError = kafka_errors.for_code(code)(f"{topic}-{partition}")
                error.errno = code
                raise error


def carry(lane: Lane, code: int, offset: int, now: float) -> kafka_errors.KafkaError | None:
    """Carry the answer to the lane's unresolved batch to the lane; the error, where the batch was not taken."""
    assert lane.batch is not None
    if code == _NO_ERROR:
        lane.succeeded(offset)
        return None
    if code == _DUPLICATE_SEQUENCE and lane.batch.in_doubt:
        lane.succeeded(-1)
        return None
    error: kafka_errors.KafkaError = kafka_errors.for_code(code)(f"{lane.topic}-{lane.partition}")
    error.errno = code  # aiokafka has no class for the newer ones, such as INVALID_RECORD
    if code in _LOST_SEQUENCE:
        lane.out_of_sequence(error, now)
    elif verdict_of(classify(error)) is Verdict.POISON:
        lane.refused(error, now)
    else:
        lane.failed(error, now, in_doubt=code not in _NOT_APPENDED)
    return error
