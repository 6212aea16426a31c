"""The staging record's own rules: times, sizes, the caller's headers (S5, S10)."""

from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog import limits
from pipeline import staging
from pipeline.errors import InvalidField, is_caller_error
from pipeline.record import RawHeader
from pipeline.staging import check_extra_headers, is_reserved, is_rfc3339, record_size

_OFFSETS = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(timezones=_OFFSETS | st.just(UTC)))
def test_every_time_is_rfc3339(time: datetime) -> None:
    """S10: what `isoformat` writes of an aware time is RFC 3339, also with `t` and `z`, and any fraction."""
    text = time.isoformat().encode()
    assert is_rfc3339(text)
    assert is_rfc3339(text.replace(b"T", b"t").replace(b"+00:00", b"z"))
    assert not is_rfc3339(text[:19])  # without an offset
    assert not is_rfc3339(text.replace(b"T", b" "))
    assert not is_rfc3339(text + b"\n")


@given(st.integers(0, 9999), st.integers(1, 12), st.integers(0, 40))
def test_days_that_do_not_exist(year: int, month: int, day: int) -> None:
    """S10: RFC 3339, 5.7: the day must be one of its month, leap years by the Gregorian rule."""
    text = f"{year:04}-{month:02}-{day:02}T00:00:00Z".encode()
    assert is_rfc3339(text) == (1 <= day <= calendar.monthrange(year or 2000, month)[1])


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"2026-01-02",
        b"2026-13-02T00:00:00Z",
        b"2026-01-02T24:00:00Z",
        b"2026-01-02T00:60:00Z",
        b"2026-01-02T00:00:61Z",
        b"2026-01-02T00:00:00.Z",
        b"2026-01-02T00:00:00+24:00",
        b"2026-01-02T00:00:00+0100",
        b"26-01-02T00:00:00Z",
        "２０２６-01-02T00:00:00Z".encode(),
    ],
)
def test_what_is_no_time(text: bytes) -> None:
    """S10: RFC 3339 to the letter."""
    assert not is_rfc3339(text)


def test_a_leap_second_is_a_time() -> None:
    """S10: RFC 3339 allows second 60, and any number of digits of a second."""
    assert is_rfc3339(b"2016-12-31T23:59:60Z")
    assert is_rfc3339(b"2016-12-31T23:59:59.123456789012345+05:30")


def test_limits() -> None:
    """S5: the byte limits of the fields, to the byte, in UTF-8."""
    for field, limit in {"tenant": 256, "id": 256, "subject": 1024, "source": 2048}.items():
        assert staging.LIMITS[field] == limit
        assert len(staging.check_text(field, "ä" * (limit // 2))) == limit
        with pytest.raises(InvalidField, match=field):
            staging.check_text(field, "ä" * (limit // 2) + "x")
    assert limits.KEY_BYTES == 256


@pytest.mark.parametrize("name", ["stage-id", "stage-x", "ce_id", "ce-id", "dlq-x", "park-x", "content-type"])
def test_reserved_names(name: str) -> None:
    """T2, Q3: a caller's header cannot pass for one of ours; the refusal is a caller error (C2)."""
    assert is_reserved(name)
    with pytest.raises(InvalidField, match="reserved") as caught:
        check_extra_headers([(name, "x")])
    assert is_caller_error(caught.value)


def test_extra_headers() -> None:
    """S1: text is written as UTF-8, bytes as they are, order and repetition kept; trace headers are free."""
    given_headers: list[tuple[str, str | bytes]] = [
        ("x", "ä"),
        ("y", b"\xff\x00"),
        ("x", ""),
        ("traceparent", "00"),
    ]
    assert check_extra_headers(given_headers) == [
        ("x", "ä".encode()),
        ("y", b"\xff\x00"),
        ("x", b""),
        ("traceparent", b"00"),
    ]


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ([("", "x")], "is empty"),
        ([("n" * 257, "x")], "name"),
        ([("a\nb", "x")], "control"),
        ([("x", "a\x00b")], "control"),
        ([("x", "v" * 65_537)], "value of 'x'"),
        ([(f"h{i}", "x") for i in range(101)], "the limit is 100"),
    ],
)
def test_bad_extra_headers(headers: list[tuple[str, str]], says: str) -> None:
    """S4: malformed headers are refused before anything is sent."""
    with pytest.raises(InvalidField, match=says):
        check_extra_headers(headers)


@given(
    st.none() | st.binary(),
    st.none() | st.binary(),
    st.lists(st.tuples(st.binary(max_size=9), st.none() | st.binary(max_size=9))),
)
def test_record_size(key: bytes | None, value: bytes | None, raw: list[tuple[bytes, bytes | None]]) -> None:
    """S5: `MAX_RECORD_BYTES` counts the bytes of key, value, and every header's name and value."""
    headers: list[RawHeader] = [(name.decode(errors="surrogateescape"), content) for name, content in raw]
    parts = [key, value, *(part for header in raw for part in header)]
    assert record_size(key, value, headers) == sum(len(part or b"") for part in parts)
