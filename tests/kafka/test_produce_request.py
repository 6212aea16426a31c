"""Produce requests as bytes: our own writing and reading of them against aiokafka's, field by field."""

from __future__ import annotations

from io import BytesIO

from aiokafka.protocol.produce import ProduceRequest, ProduceResponse_v7
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kafka.batch import Batch
from pipeline.kafka.lane import Lane
from pipeline.kafka.request import produce_request

VERSIONS = {0: (3, 12)}
INT16, INT32, INT64 = (st.integers(-(1 << bits), (1 << bits) - 1) for bits in (15, 31, 63))
PARTITIONS = st.lists(st.tuples(INT32, INT16, INT64, INT64, INT64), max_size=4)
BATCHES = st.dictionaries(
    st.tuples(st.text(st.characters(codec="utf-8"), max_size=8), INT32), st.binary(max_size=40), max_size=8
)


@given(BATCHES, st.integers(0, 60))
def test_a_request_is_written_as_aiokafka_writes_it(
    batches: dict[tuple[str, int], bytes], timeout_s: int
) -> None:
    """S2: what a broker reads is a ProduceRequest, acks=all, with every batch under its topic and partition."""
    lanes = [(Lane(*place), Batch([])) for place in batches]
    for (_, batch), data in zip(lanes, batches.values(), strict=True):
        batch.data = data
    topics: dict[str, list[tuple[int, bytes]]] = {}
    for (topic, partition), data in batches.items():
        topics.setdefault(topic, []).append((partition, data))
    theirs = ProduceRequest(None, -1, timeout_s * 1_000, list(topics.items()))
    ours = produce_request(lanes, timeout_s)
    assert ours.prepare(VERSIONS).encode() == theirs.prepare(VERSIONS).encode()
    assert ours.prepare({0: (3, 6)}).encode() == theirs.prepare({0: (3, 6)}).encode()


@given(st.lists(st.tuples(st.text(st.characters(codec="utf-8"), max_size=8), PARTITIONS), max_size=4), INT32)
def test_an_answer_is_read_as_aiokafka_reads_it(
    topics: list[tuple[str, list[tuple[int, int, int, int, int]]]], throttled_ms: int
) -> None:
    """S2: every batch hears its own answer: topic, partition, error code and offset."""
    response = ProduceResponse_v7(topics, throttled_ms)
    reader = produce_request([], 1).prepare(VERSIONS).RESPONSE_TYPE
    found = reader.decode(BytesIO(response.encode()))
    assert isinstance(found, ProduceResponse_v7)
    assert (found.topics, found.throttle_time_ms) == (topics, throttled_ms)
