"""A produce request, and what a broker's answer to one of its batches means for the lane. Pure.

Owns: Kafka's error codes where they decide what is sent next (https://kafka.apache.org/protocol#protocol_error_codes).
Must not know: connections, tasks. The clock is handed in.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import Any, Self

from aiokafka import errors as kafka_errors
from aiokafka.protocol.api import Response
from aiokafka.protocol.produce import ProduceRequest, ProduceRequest_v7, ProduceResponse_v7

from pipeline.errors import Verdict, classify, verdict_of
from pipeline.kafka.batch import Batch
from pipeline.kafka.lane import Lane

__all__ = ["NO_ERROR", "Sent", "carry", "empty_request", "produce_request", "refusal_of"]

Sent = Mapping[tuple[str, int], tuple[Lane, Batch]]
"""What a request holds, by topic and partition."""

NO_ERROR, _CORRUPT, _WRONG_TIME, _DUPLICATE_SEQUENCE = 0, 2, 32, 46
_LOST_SEQUENCE = frozenset({45, _DUPLICATE_SEQUENCE, 47, 49, 59, 90})
"""OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH, INVALID_PRODUCER_ID_MAPPING, UNKNOWN_PRODUCER_ID,
PRODUCER_FENCED; and a duplicate of what was never sent."""
_EMPTY = frozenset({NO_ERROR, _CORRUPT, 87})
"""CORRUPT_MESSAGE, INVALID_RECORD: what is left to say of a request in which all but the records is right."""
_NOT_APPENDED = frozenset({_CORRUPT, 3, 17, 19, 29, 31, _WRONG_TIME})
"""CORRUPT_MESSAGE, UNKNOWN_TOPIC_OR_PARTITION, INVALID_TOPIC_EXCEPTION, NOT_ENOUGH_REPLICAS, TOPIC_ and
CLUSTER_AUTHORIZATION_FAILED, INVALID_TIMESTAMP. Others may come after appending: a leader that steps down while it
waits for its followers answers NOT_LEADER_OR_FOLLOWER."""
_CORRUPT_IN_TRANSIT = 2
"""So often a batch that a broker finds corrupt is taken to have been damaged on its way. Java's client tries on until
the delivery timeout, which what a worker delivers does not have; aiokafka's does not try again."""


_REQUEST = struct.Struct(">hhii")
_RESPONSE = struct.Struct(">ihqqq")
_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")
_PARTITION = struct.Struct(">ii")


class _Answer(ProduceResponse_v7):  # type: ignore[misc]
    """aiokafka's response, read at once: field by field takes five times as long."""

    @classmethod
    def decode(cls, data: BytesIO) -> Self:
        """Read it. Raises `struct.error` where it ends too soon."""
        content = data.read()
        (count,) = _INT32.unpack_from(content)
        at = _INT32.size
        topics = []
        for _ in range(count):
            (length,) = _INT16.unpack_from(content, at)
            at += _INT16.size + length
            topic = content[at - length : at].decode()
            (partitions,) = _INT32.unpack_from(content, at)
            at += _INT32.size
            end = at + partitions * _RESPONSE.size
            topics.append((topic, list(_RESPONSE.iter_unpack(content[at:end]))))
            at = end
        return cls(topics, *_INT32.unpack_from(content, at))


class _Struct(ProduceRequest_v7):  # type: ignore[misc]
    """aiokafka's request, written at once."""

    RESPONSE_TYPE = _Answer
    topics: list[tuple[str, list[tuple[int, bytes | bytearray]]]]

    def encode(self) -> bytes:
        """Its bytes."""
        no_transaction, topics = -1, self.topics
        parts: list[bytes | bytearray] = [
            _REQUEST.pack(no_transaction, self.required_acks, self.timeout, len(topics))
        ]
        for topic, batches in topics:
            name = topic.encode()
            parts += _INT16.pack(len(name)), name, _INT32.pack(len(batches))
            for partition, data in batches:
                parts += _PARTITION.pack(partition, len(data)), data
        return b"".join(parts)


class _Request(ProduceRequest):  # type: ignore[misc]
    """aiokafka's, but for the version that all brokers since 2.1 speak, which is written and read faster."""

    def build(self, request_struct_class: type[Any]) -> Any:
        """The request in the version that was agreed upon."""
        return super().build(_Struct if request_struct_class is ProduceRequest_v7 else request_struct_class)


def produce_request(batches: Iterable[tuple[Lane, Batch]], timeout_s: float) -> ProduceRequest:
    """The request, acks=all; the broker waits for its followers for at most `timeout_s`."""
    topics: defaultdict[str, list[tuple[int, bytes | bytearray]]] = defaultdict(list)
    for lane, batch in batches:
        topics[lane.topic].append((lane.partition, batch.data))
    return _Request(
        transactional_id=None, required_acks=-1, timeout=int(timeout_s * 1000), topics=list(topics.items())
    )


def empty_request(topic: str, partition: int) -> ProduceRequest:
    """A request without a record: the leader looks at everything else, and then refuses it for being empty."""
    return _Request(
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


def carry(lane: Lane, code: int, now: float) -> kafka_errors.KafkaError | None:
    """Carry the error that answers the lane's unresolved batch to the lane; None, where the broker had the batch."""
    batch = lane.batch
    assert batch is not None
    if code == _DUPLICATE_SEQUENCE and batch.in_doubt:
        lane.succeeded(-1)
        return None
    error = _error_of(lane, batch, code)
    if code in _LOST_SEQUENCE:
        lane.out_of_sequence(error, now)
    elif verdict_of(classify(error)) is Verdict.POISON:
        lane.refused(error, now)
    else:
        lane.failed(error, now, in_doubt=code not in _NOT_APPENDED)
    return error


def _error_of(lane: Lane, batch: Batch, code: int) -> kafka_errors.KafkaError:
    """What an error code says of a batch; where its bytes may be at fault and not its records, it is encoded anew."""
    place = f"{lane.topic}-{lane.partition}"
    if code == _CORRUPT:
        batch.corrupt += 1
        if batch.corrupt <= _CORRUPT_IN_TRANSIT:
            batch.identity = None
            return kafka_errors.KafkaConnectionError(f"{place}: CORRUPT_MESSAGE, damaged on its way")
    elif code == _WRONG_TIME:
        batch.identity = None  # our clock was wrong, or the broker's: what ours says then counts
    error: kafka_errors.KafkaError = kafka_errors.for_code(code)(place)
    error.errno = code  # aiokafka has no class for the newer ones, such as INVALID_RECORD
    return error
