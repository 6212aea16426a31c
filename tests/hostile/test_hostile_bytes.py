"""Whatever bytes come in, every reader of foreign data reads or refuses them, by its own error and no other."""

from __future__ import annotations

import contextlib
import json
import time
import unicodedata
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import PolicyError
from catalog.policies import MAX_ENTRIES, format_override, parse_override, parse_policies
from pipeline import park
from pipeline.cloudevents import NotACloudEvent, read
from pipeline.dlq import MAX_MESSAGE_BYTES, clean_message
from pipeline.errors import InvalidField
from pipeline.outbox.row import BadRow, decode, encode
from pipeline.packing import pack, unpack
from pipeline.park import load_checkpoint, unpark
from pipeline.plan import Limits, plan
from pipeline.record import RawHeader
from pipeline.redrive.dialects import read_facts
from pipeline.redrive.job import read_told
from pipeline.redrive.restore import NotRedriven, way_back
from pipeline.staging import check_extra_headers
from tests.core.staged_records import COUNTS, LIMITS, planned, router, staged

_NAMES = (
    *(
        "content-type",
        "ce_id",
        "ce-id",
        "ce_specversion",
        "ce-specversion",
        "ce_source",
        "ce_type",
        "ce-source",
    ),
    *("ce-type", "ce_time", "ce_", "ce-datacontenttype", "stage-id", "stage-definition", "stage-version"),
    *(
        "dlq-source-topic",
        "dlq-error-class",
        "dlq-staging-partition",
        "dlq-staging-offset",
        "dlq-payload-omitted",
    ),
    *("dlq-redrive-count", "dlq-first-failure-at", "dlq-disposition", "x-lerian-dlq-source-topic"),
    *("x-lerian-dlq-retry-count", "x-lerian-dlq-payload-omitted", "x-lerian-dlq-first-failure-at"),
    *("__connect.errors.topic", "__connect.errors.partition", "__connect.errors.offset"),
    *("kafka_dlt-original-topic", "kafka_dlt-original-partition", "kafka_dlt-original-offset"),
    *("kafka_original-topic", "kafka_original-offset", "park-target", "park-partition", "park-offset"),
)
_VALUES = (
    *(b"1.0", b"1", b"-1", b"", b"true", b"application/json", b"application/cloudevents+json; charset=x"),
    *(b"a\r\nb", b"\x00", b"\xff\xfe", b"9" * 400, b"2026-01-02T03:04:05Z", b"\x7f" * 8, b"1e400", b"NaN"),
    *(
        "\u202e\u0663".encode(),
        b"/etc",
        b"order.created",
        b"9223372036854775808",
        b"9999-12-31T23:59:59-23:59",
    ),
)
_HEADERS = st.lists(
    st.tuples(
        st.sampled_from(_NAMES) | st.text(max_size=8) | st.just("\udcff"),
        st.none() | st.sampled_from(_VALUES) | st.binary(max_size=16),
    ),
    max_size=14,
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)
_VALUE = st.none() | st.binary(max_size=80) | _JSON.map(lambda data: json.dumps(data).encode())


@dataclass(frozen=True)
class Letter:
    """A dead letter as somebody wrote it."""

    key: bytes | None
    value: bytes | None
    headers: list[RawHeader]
    offset: int = 0
    timestamp: int = 0


@given(_VALUE, _HEADERS)
def test_a_cloudevent_is_read_or_refused(value: bytes | None, headers: list[RawHeader]) -> None:
    """T2: in both dialects and both modes, and mixtures of them; what is read has every required attribute."""
    for mode in ([], [("content-type", b"application/cloudevents+json")]):
        with contextlib.suppress(NotACloudEvent):
            event = read(value, [*mode, *headers])
            assert all(event.attributes[name] for name in ("id", "source", "type", "specversion"))


@given(_HEADERS, st.none() | st.binary(max_size=20), _VALUE)
def test_a_foreign_dead_letter_is_read_and_sent_back_or_held(
    headers: list[RawHeader], key: bytes | None, value: bytes | None
) -> None:
    """Q3: of whatever program, facts are read, and what is sent back carries no header that says why it failed."""
    facts = read_facts(headers)
    assert isinstance(facts.message, str)
    with contextlib.suppress(NotRedriven):
        back = way_back(
            Letter(key, value, headers), None, staging_topic="s.staging", failed_at=0.0, max_redrives=3
        )
        assert back.topic
        left = {name for name, _ in back.record[2]}
        if facts.dialect == "stagepost":
            assert not {name for name in left if name.startswith("dlq-")} - {
                "dlq-first-failure-at",
                "dlq-redrive-count",
            }


@given(
    st.text(max_size=200)
    | st.lists(st.sampled_from([*"=.,;\n", "dlq", "never", "a.b", "enabled"])).map("".join)
)
def test_policy_texts_are_read_or_refused(text: str) -> None:
    """D5, S10: the variable and the header: an error that names the entry, and nothing else; one form only."""
    with contextlib.suppress(PolicyError):
        parse_policies(text)
    with contextlib.suppress(PolicyError):
        override = parse_override(text)
        assert parse_override(format_override(override)) == override


@given(st.binary(max_size=120), st.integers(0, 200), st.integers(0, 255))
def test_a_damaged_row_is_refused_or_another_row(noise: bytes, at: int, byte: int) -> None:
    """S11: a row of an outbox with any byte changed, or noise behind it, is a row or a `BadRow`."""
    whole = bytearray(encode("id", pack((b"key", b"value", [("stage-id", b"id"), ("x", noise)]))))
    whole[at % len(whole)] = byte
    for data in (bytes(whole), bytes(whole) + noise, noise, b"\x01" + noise):
        with contextlib.suppress(BadRow):
            row = decode(data)
            assert encode(row.id, pack((row.key, row.value, row.headers))) == data


_PARK_VALUES = st.none() | st.sampled_from((*_VALUES, b"0", b"t")) | st.binary(max_size=8)


@given(_HEADERS, st.tuples(*[_PARK_VALUES] * len(park.NAMES)), _VALUE)
def test_what_stands_on_own_topics_is_read_or_left(
    headers: list[RawHeader], origin: tuple[bytes | None, ...], value: bytes | None
) -> None:
    """Q5: the parked topic, its cursors and the jobs: whoever wrote there, a worker reads on."""
    unpark([*headers, *zip(park.NAMES, origin, strict=True)])
    load_checkpoint(value)
    read_told(value)


_PLACES = ("id", "subject", "tenant", "source", "time", "definition", "policy")


@given(st.sampled_from(_PLACES), st.sampled_from(["\r\n", "\n", "\x00", "\x7f", "\x85", "\x1b[2J", "\u2028"]))
def test_no_header_injects_another(place: str, character: str) -> None:
    """T2, S4: no line end or control character gets from a staging header into a CloudEvents header."""
    hostile = f"a{character}ce_id: forged".encode()
    result = planned(staged({place: hostile}), using=router("ce_"))
    for column in result.columns.values():
        for _, _, headers in map(unpack, column.records):
            assert len([name for name, _ in headers if name == "ce_id"]) == 1
            for name, value in headers:
                if name.startswith("ce_"):
                    assert not any(
                        ord(letter) < 32 or 0x7F <= ord(letter) < 0xA0 for letter in (value or b"").decode()
                    )


@given(st.lists(st.tuples(st.text(max_size=300), st.binary(max_size=50) | st.text(max_size=50)), max_size=4))
def test_a_callers_own_headers_are_sound_or_refused(headers: list[tuple[str, str | bytes]]) -> None:
    """S4: no control character in a name or a text, and no name of ours; else nothing is sent."""
    with contextlib.suppress(InvalidField):
        for name, _ in check_extra_headers(headers):
            assert not [letter for letter in name if unicodedata.category(letter) == "Cc"]
            assert not name.startswith(("stage-", "ce_", "ce-", "dlq-", "park-"))


@pytest.mark.parametrize(
    "more",
    [
        [(f"h{number}", b"v") for number in range(10_000)],
        [("n" * 1_000_000, b"v")],
        [("\udcff" * 100_000, None)],
        [("ce_id", b"forged")] * 1_000,
        [("stage-id", b"id")] * 10_000,
        [("tracestate", b"t" * 1_000_000)],
    ],
    ids=["10,000 headers", "a name of 1 MB", "no UTF-8", "forged", "repeated", "a value of 1 MB"],
)
def test_monstrous_headers_cost_little_and_end(more: list[RawHeader]) -> None:
    """S5, T6: a record with 10,000 headers, or names of 1 MB, has one end, in well under a second."""
    began = time.perf_counter()
    for limits in (LIMITS, Limits(1_000_000, 100_000_000)):
        result = plan([staged(more=more)], router("ce_"), COUNTS, limits)
        ends = [column.sources for column in result.columns.values()] + [[it.index] for it in result.rejected]
        assert ends == [[0]]
    assert time.perf_counter() - began < 1


def test_as_many_policies_as_allowed() -> None:
    """D5: 1,024 entries are read, one more is refused; so is no more than its start shown."""
    parse_policies(",".join(f"k{number}.dlq=never" for number in range(MAX_ENTRIES)))
    with pytest.raises(PolicyError):
        parse_policies(",".join(f"k{number}.dlq=never" for number in range(MAX_ENTRIES + 1)))


_SECRET = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\"'@,;&/\\#"), min_size=8
)
_AROUND = (
    "password={}",
    "https://user:{}@host/x",
    "sasl.password: {}",
    "Authorization: Bearer {}",
    '"token": "{}"',
)


@given(_SECRET, st.sampled_from(_AROUND), st.text(max_size=40))
def test_no_planted_secret_is_shown(secret: str, around: str, before: str) -> None:
    """Q2: a credential in an error's message is gone from what is written down, whatever stands around it."""
    secret = f"S3CRET{secret}"
    shown = clean_message(f"{before} {around.format(secret)} and more")
    assert secret not in shown
    assert len(shown.encode()) <= MAX_MESSAGE_BYTES
