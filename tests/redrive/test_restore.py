"""Back from a dead letter, ours and other programs': golden records of each, and what is not sent back (Q3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cloudevents import constant_headers
from pipeline.dlq import Disposition, Failure, dead_letter_headers
from pipeline.errors import ErrorClass
from pipeline.record import RawHeader
from pipeline.redrive.dialects import Facts, read_facts
from pipeline.redrive.entry import index_entry
from pipeline.redrive.model import Coordinates
from pipeline.redrive.restore import Held, NotRedriven, WayBack, omitted_from, way_back
from tests.catalogs.shop import DEFINITIONS
from tests.core.staged_records import staged

STAGING = "shop.staging"


@dataclass(frozen=True)
class Read:
    """A record as it was read."""

    headers: Sequence[RawHeader]
    key: bytes | None = b"k"
    value: bytes | None = b"\x00payload"
    offset: int = 7
    timestamp: int = 1_767_323_045_250


def back(letter: Read, original: Read | None = None, max_redrives: int = 3) -> WayBack:
    """The way back of a dead letter that failed at 1,767,323,045.25 s."""
    return way_back(
        letter,
        original,
        staging_topic=STAGING,
        failed_at=1_767_323_045.25,
        max_redrives=max_redrives,
    )


def ours(original: Sequence[RawHeader], framed: Sequence[RawHeader] = ()) -> list[RawHeader]:
    """The headers of a dead letter of ours."""
    return dead_letter_headers(
        original,
        framed,
        Failure(ErrorClass.VALIDATION, "x", Disposition.POISON),
        source_topic="shop.order.created",
        staging_partition=4,
        staging_offset=99,
        retry_count=0,
        failed_at=1_767_323_000.0,
        producer_id="w/1",
    )


ORDER = next(one for one in DEFINITIONS if one.key == "order.created")
FRAMED: list[RawHeader] = [
    *constant_headers(ORDER, "ce_", "shop"),
    ("ce_source", b"//shop/web"),
    ("ce_id", b"1"),
    ("ce_partitionkey", b"t"),
]


@pytest.mark.parametrize("framed", [[], FRAMED])
@pytest.mark.parametrize("passes", [1, 2])
def test_ours_goes_back_as_it_was_staged(framed: list[RawHeader], passes: int) -> None:
    """Q3: to its partition of staging, key, bytes and headers as they were; after a second pass it is no larger."""
    original = [*staged().headers, ("x", b"1"), ("x", b"\xff"), ("null", None)]
    record = Read(ours(original, framed))
    for number in range(1, passes + 1):
        way = back(record)
        assert (way.topic, way.partition) == (STAGING, 4)
        key, value, headers = way.record
        assert (key, value) == (record.key, record.value)
        first = ("dlq-first-failure-at", b"2026-01-02T03:03:20.000000Z")
        assert headers == [*original, first, ("dlq-redrive-count", b"%d" % number)]
        record = Read(ours(headers, framed))


@given(
    original=st.lists(
        st.tuples(st.sampled_from(["x", "stage-id", "ce_id", "y"]), st.none() | st.binary(max_size=9))
    ),
    is_framed=st.booleans(),
)
def test_whatever_was_staged(original: list[RawHeader], *, is_framed: bool) -> None:
    """Q3: any headers come back, in their order, repeated and null ones too; only framing's own are taken off."""
    letter = Read(ours(original, FRAMED if is_framed else ()))
    _, _, headers = back(letter).record
    assert headers[:-2] == original


def test_the_loop_guard() -> None:
    """Q3: redriven `MAX_REDRIVES` times, a record stays where it is; a count that is none counts as none."""
    for count, held in (
        (b"2", False),
        (b"3", True),
        (b"999", True),
        (b"", False),
        (b"-5", False),
        (b"x", False),
    ):
        letter = Read(ours([("stage-id", b"1"), ("dlq-redrive-count", count)]))
        if held:
            with pytest.raises(NotRedriven, match="redriven_too_often"):
                back(letter)
        else:
            assert back(letter).record[2][-1][0] == "dlq-redrive-count"


def test_a_payload_left_out() -> None:
    """Q2: it is read again where the record was staged; where another record is there now, it is refused."""
    headers = [*ours([("stage-id", b"1")]), ("dlq-payload-omitted", b"true"), ("dlq-payload-bytes", b"9")]
    letter = Read(headers, value=None)
    assert omitted_from(headers, STAGING) == Coordinates(STAGING, 4, 99)
    assert omitted_from(headers[:-2], STAGING) is None
    same = Read([("stage-id", b"1")], value=b"all of it")
    assert back(letter, same).record[1] == b"all of it"
    for original in (None, Read([("stage-id", b"2")]), Read([("stage-id", b"1")], key=b"other")):
        with pytest.raises(NotRedriven, match="payload_not_kept"):
            back(letter, original)


# --- other programs' dead letters

LIB_STREAMING: list[RawHeader] = [
    ("ce-specversion", b"1.0"),
    ("ce-id", b"0190-1"),
    ("ce-source", b"//bank/ledger"),
    ("ce-type", b"studio.lerian.transaction.created"),
    ("ce-tenantid", b"tenant-1"),
    ("x-lerian-dlq-source-topic", b"lerian.streaming.transaction.created"),
    ("x-lerian-dlq-error-class", b"serialization_error"),
    ("x-lerian-dlq-error-message", b"message 1048 too large"),
    ("x-lerian-dlq-retry-count", b"0"),
    ("x-lerian-dlq-first-failure-at", b"2026-01-02T03:04:05.123456789Z"),
    ("x-lerian-dlq-producer-id", b"0190-2"),
]
LIB_STREAMING_CONSUMER: list[RawHeader] = [
    *LIB_STREAMING,
    ("x-lerian-dlq-source-partition", b"2"),
    ("x-lerian-dlq-source-offset", b"77"),
    ("x-lerian-dlq-cause-kind", b"handler"),
]
CONNECT: list[RawHeader] = [
    ("app", b"1"),
    ("__connect.errors.topic", b"orders"),
    ("__connect.errors.partition", b"3"),
    ("__connect.errors.offset", b"1234"),
    ("__connect.errors.connector.name", b"jdbc-sink"),
    ("__connect.errors.task.id", b"0"),
    ("__connect.errors.stage", b"VALUE_CONVERTER"),
    ("__connect.errors.class.name", b"org.apache.kafka.connect.json.JsonConverter"),
    ("__connect.errors.exception.class.name", b"org.apache.kafka.connect.errors.DataException"),
    ("__connect.errors.exception.message", b"Converting byte[] to Kafka Connect data failed"),
    ("__connect.errors.exception.stacktrace", b"at ..."),
]
BIG_ENDIAN = {"partition": (5).to_bytes(4, "big"), "offset": (2**33).to_bytes(8, "big")}


def spring(prefix: str) -> list[RawHeader]:
    """A dead letter of spring-kafka that went through two topics: the first set of original headers is the origin."""
    again: list[RawHeader] = [
        (f"{prefix}original-topic", b"orders-retry-0"),
        (f"{prefix}original-partition", (0).to_bytes(4, "big")),
        (f"{prefix}original-offset", (1).to_bytes(8, "big")),
    ]
    return [
        ("app", b"1"),
        (f"{prefix}original-topic", b"orders"),
        (f"{prefix}original-partition", BIG_ENDIAN["partition"]),
        (f"{prefix}original-offset", BIG_ENDIAN["offset"]),
        (f"{prefix}original-timestamp", (1_767_323_045_000).to_bytes(8, "big")),
        (f"{prefix}original-timestamp-type", b"CreateTime"),
        ("kafka_dlt-original-consumer-group", b"billing"),
        *again,
        (f"{prefix}exception-fqcn", b"org.springframework.kafka.listener.ListenerExecutionFailedException"),
        (f"{prefix}exception-cause-fqcn", b"java.lang.IllegalStateException"),
        (f"{prefix}exception-message", b"Listener failed; order 17 unknown"),
        (f"{prefix}exception-stacktrace", b"at ..."),
        (f"{prefix}key-exception-fqcn", b"x"),
        ("retry_topic-attempts", (3).to_bytes(4, "big")),
    ]


CAUSE = "java.lang.IllegalStateException"
GOLDEN = {
    "lib-streaming, producer": (
        LIB_STREAMING,
        Facts(
            "lib-streaming",
            Coordinates("lerian.streaming.transaction.created", -1, -1),
            "serialization_error",
            "message 1048 too large",
            "",
            "",
            1_767_323_045.123456,
        ),
        LIB_STREAMING[:5],
    ),
    "lib-streaming, consumer": (
        LIB_STREAMING_CONSUMER,
        Facts(
            "lib-streaming",
            Coordinates("lerian.streaming.transaction.created", 2, 77),
            "serialization_error",
            "message 1048 too large",
            "",
            "",
            1_767_323_045.123456,
        ),
        LIB_STREAMING[:5],
    ),
    "Kafka Connect": (
        CONNECT,
        Facts(
            "connect",
            Coordinates("orders", 3, 1_234),
            "org.apache.kafka.connect.errors.DataException",
            "Converting byte[] to Kafka Connect data failed",
            "",
            "",
            None,
        ),
        CONNECT[:1],
    ),
    "spring, recoverer": (
        spring("kafka_dlt-"),
        Facts(
            "spring",
            Coordinates("orders", 5, 2**33),
            CAUSE,
            "Listener failed; order 17 unknown",
            "",
            "",
            None,
        ),
        [("app", b"1")],
    ),
    "spring, retryable topic": (
        spring("kafka_"),
        Facts(
            "spring",
            Coordinates("orders", 5, 2**33),
            CAUSE,
            "Listener failed; order 17 unknown",
            "",
            "",
            None,
        ),
        [("app", b"1")],
    ),
}


@pytest.mark.parametrize(("headers", "facts", "left"), GOLDEN.values(), ids=GOLDEN)
def test_golden_records_of_others(headers: list[RawHeader], facts: Facts, left: list[RawHeader]) -> None:
    """O2: dead letters of lib-streaming, Kafka Connect and spring-kafka, in both of its dialects, are read, and go
    back to the first topic and partition they came from, without what their program had put on."""
    assert read_facts(headers) == facts
    way = back(Read(headers))
    assert (way.topic, way.partition) == facts.came_from[:2]
    assert way.record == (b"k", b"\x00payload", [*left, ("dlq-redrive-count", b"1")])
    # Its program dead-letters it once more, with our header among the originals: the count goes on.
    again = back(Read([*way.record[2], *headers[len(left) :]]))
    assert again.record[2] == [*left, ("dlq-redrive-count", b"2")]


def test_what_says_nothing_of_where_it_came_from() -> None:
    """O2: a record without any known header is no dead letter that could be sent back."""
    assert read_facts([("x", b"1"), ("dlq-source-topic", None)]).dialect == "unknown"
    for headers in ([], [("__connect.errors.topic", b"")], [("kafka_original-offset", b"1")]):
        with pytest.raises(NotRedriven, match="origin_unknown"):
            back(Read(headers))
    omitted: list[RawHeader] = [*LIB_STREAMING, ("x-lerian-dlq-payload-omitted", b"true")]
    with pytest.raises(NotRedriven) as held:
        back(Read(omitted, value=None))
    assert held.value.why is Held.NO_PAYLOAD
    consumer: list[RawHeader] = [*LIB_STREAMING_CONSUMER, ("x-lerian-dlq-payload-omitted", b"true")]
    assert omitted_from(consumer, STAGING) == Coordinates("lerian.streaming.transaction.created", 2, 77)


@given(
    st.lists(st.tuples(st.sampled_from([n for n, _ in spring("kafka_") + CONNECT]), st.binary(max_size=12)))
)
def test_nothing_in_a_header_breaks_the_reading(headers: list[RawHeader]) -> None:
    """O1: whatever bytes stand in the headers, the letter is read and indexed; texts are clean."""
    facts = read_facts(headers)
    assert isinstance(facts.came_from.offset, int)
    _, value, _ = index_entry(Coordinates("t", 0, 1), b"k", b"v", headers, failed_at=1.0)
    assert value is not None
    assert b"\\u0000" not in value
