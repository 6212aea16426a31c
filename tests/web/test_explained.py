"""What a header of a dead letter says to somebody who sees it for the first time (O1)."""

from __future__ import annotations

import pytest

from pipeline.record import RawHeader
from pipeline.web.explained import explained
from tests.redrive.test_restore import CONNECT, LIB_STREAMING_CONSUMER, spring

OTHERS = {
    "lib-streaming": LIB_STREAMING_CONSUMER[5:],
    "Kafka Connect": CONNECT[1:],
    "spring-kafka": [*spring("kafka_dlt-")[1:], *spring("kafka_")[1:]],
}


@pytest.mark.parametrize(("program", "headers"), OTHERS.items(), ids=OTHERS)
def test_headers_of_other_programs_are_explained(program: str, headers: list[RawHeader]) -> None:
    """O1, O2: each header that another program wrote about a failure names that program, and nearly all say what."""
    meanings = {name: explained(name, value) for name, value in headers}
    assert all(f"as {program} wrote it" in meaning for meaning in meanings.values())
    unknown = [name for name, meaning in meanings.items() if meaning.startswith("about the failure")]
    assert len(unknown) <= 2, unknown


def test_binary_numbers_are_told() -> None:
    """O1: the big-endian integers of spring-kafka can be read; bytes that are none are left as they are."""
    told = {name: explained(name, value) for name, value in spring("kafka_dlt-")[:5]}
    assert told["kafka_dlt-original-partition"].endswith(": 5")
    assert told["kafka_dlt-original-offset"].endswith(f": {2**33}")
    assert explained("retry_topic-attempts", (3).to_bytes(4, "big")).endswith(": 3")
    assert explained("kafka_original-offset", b"12") == "its offset there, as spring-kafka wrote it"
    assert explained("kafka_original-offset", None) == "its offset there, as spring-kafka wrote it"
    assert explained("x-order", b"\x00\x00\x00\x05") == explained("kafka_correlationId", b"1") == ""
