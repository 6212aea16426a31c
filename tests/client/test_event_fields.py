"""The fields and headers of an event: what is refused, up to which byte, and what the record says (S4, S5, S10)."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.policies import DeliveryPolicy, PolicyOverride
from pipeline.errors import (
    CallerError,
    EventDisabled,
    InvalidField,
    PolicyError,
    UnknownDefinition,
)
from pipeline.testing import SteppingClock
from tests.client.client_events import SOURCE, checker, headers_of, time_of
from tests.client.event_checks import LEGAL, check, refusal

FORBIDDEN = "[\x00-\x1f\x7f-\x9f\ud800-\udfff]"

# --- fields


def text_of(size: int, letter: str) -> str:
    """Text of exactly `size` bytes of UTF-8, as much of it as possible the given letter."""
    count, rest = divmod(size, len(letter.encode()))
    return letter * count + "x" * rest


@pytest.mark.parametrize("letter", ["x", "é", "語", "🛫"])
@pytest.mark.parametrize(("field", "limit"), [("tenant", 256), ("subject", 1024), ("id", 256)])
def test_the_limit_is_in_bytes(field: str, limit: int, letter: str) -> None:
    """A field may have its limit in bytes, not characters, and not one byte more (S5)."""
    allowed = text_of(limit, letter)
    assert headers_of(check(**{field: allowed}))[f"stage-{field}"] == allowed.encode()
    error = refusal(**{field: text_of(limit + 1, letter)})
    assert isinstance(error, InvalidField)
    assert error.field == field
    assert str(limit) in error.reason


@pytest.mark.parametrize("field", ["tenant", "subject", "id"])
@pytest.mark.parametrize("bad", ["a\nb", "\x00", "\x7f", "\x85", "a\ud800", "\ufdd0", "\U0010ffff", "a\tb"])
def test_forbidden_characters(field: str, bad: str) -> None:
    """Control characters, lone surrogates and noncharacters are refused (S4)."""
    error = refusal(**{field: bad})
    assert isinstance(error, InvalidField)
    assert error.field == field
    assert bad not in str(error)


@given(st.text(LEGAL, min_size=1, max_size=60))
def test_any_legal_text_comes_through(text: str) -> None:
    """Whatever text is legal stands in the headers as it was given (S10)."""
    headers = headers_of(check(tenant=text, subject=text, id=text, headers={"own": text}))
    assert {headers[f"stage-{name}"].decode() for name in ("tenant", "subject", "id")} == {text}
    assert headers["own"].decode() == text


@given(st.text(max_size=20), st.from_regex(FORBIDDEN, fullmatch=True), st.text(max_size=20))
def test_no_illegal_text_comes_through(before: str, bad: str, after: str) -> None:
    """One forbidden character anywhere is enough (S4)."""
    for field in ("tenant", "subject", "id"):
        assert isinstance(refusal(**{field: before + bad + after}), InvalidField)


def test_empty_is_absent() -> None:
    """An empty tenant or subject is as good as none (S1); an empty id is a caller error."""
    assert not {"stage-tenant", "stage-subject"} & headers_of(check(tenant="", subject="")).keys()
    error = refusal(id="")
    assert isinstance(error, InvalidField)
    assert error.field == "id"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tenant", uuid.UUID(int=7)),
        ("tenant", 0),
        ("subject", 17),
        ("subject", b"raw"),
        ("id", uuid.UUID(int=7)),
        ("time", 1767323045.0),
        ("time", date(2026, 1, 2)),
        ("policy", "outbox=never"),
        ("headers", 5),
        ("headers", ["name"]),
    ],
)
def test_the_wrong_type_is_named(field: str, value: object) -> None:
    """An argument of the wrong type is a caller error that names it, not an accident further down (S4)."""
    error = refusal(**{field: value})
    assert isinstance(error, InvalidField)
    assert error.field == field


# --- which definition, and who stages it


def test_unknown_definition() -> None:
    """A key that is not in the catalog is refused, and a likely one named (S4)."""
    error = refusal("thing.happend")
    assert isinstance(error, UnknownDefinition)
    assert error.suggestions[0] == "thing.happened"
    assert "did you mean 'thing.happened'" in str(error)
    assert isinstance(refusal(None), InvalidField)


def test_disabled_definition() -> None:
    """A disabled definition is refused with what to do about it, unless the call enables it (D3, D6)."""
    error = refusal("thing.disabled")
    assert isinstance(error, EventDisabled)
    assert error.key == "thing.disabled"
    assert check("thing.disabled", policy={"enabled": True}).policy.enabled
    assert isinstance(refusal(policy={"enabled": False}), EventDisabled)


def test_sources() -> None:
    """A service that may not stage a definition learns it at once, not from a dead letter (D1, S4)."""
    assert headers_of(check("thing.guarded"))["stage-source"] == SOURCE.encode()
    error = refusal("thing.foreign")
    assert isinstance(error, InvalidField)
    assert error.field == "source"
    assert SOURCE in str(error)


# --- time


def test_defaults() -> None:
    """Without an id the event gets a UUIDv7, without a time it gets now in UTC (S3)."""
    clock = SteppingClock(datetime(2026, 1, 2, 3, 4, 5, 6, UTC))
    checks = checker(clock)
    first = checks.check("thing.happened", None)
    assert uuid.UUID(first.id).version == 7
    assert headers_of(first)["stage-time"] == b"2026-01-02T03:04:05.000006Z"
    clock.step(1)
    assert headers_of(checks.check("thing.happened", None))["stage-time"] == b"2026-01-02T03:04:06.000006Z"
    assert checks.check("thing.happened", None, id="mine").id == "mine"


def test_naive_time_is_refused() -> None:
    """A time without an offset says nothing: refused (S4)."""
    error = refusal(time=datetime(2026, 1, 2, 3, 4, 5))  # noqa: DTZ001 -- the point
    assert isinstance(error, InvalidField)
    assert error.field == "time"


@given(
    st.datetimes(),
    st.timedeltas(min_value=timedelta(hours=-23, minutes=-59), max_value=timedelta(hours=23, minutes=59)),
)
def test_times_keep_their_instant(moment: datetime, offset: timedelta) -> None:
    """A time is written as RFC 3339 with its own offset; one that RFC 3339 cannot say, in UTC (S10)."""
    time = moment.replace(tzinfo=timezone(offset))
    whole_minutes = offset % timedelta(minutes=1) == timedelta(0)
    try:
        event = check(time=time)
    except CallerError:
        assert not whole_minutes  # outside the years 1 to 9999 once it is in UTC
        return
    assert time_of(event) == time
    assert time_of(event).utcoffset() == (offset if whole_minutes else timedelta(0))


def test_historical_offsets() -> None:
    """Amsterdam was 19 minutes and 32 seconds ahead of UTC until 1937; RFC 3339 has no seconds there."""
    event = check(time=datetime(1930, 1, 1, tzinfo=ZoneInfo("Europe/Amsterdam")))
    assert headers_of(event)["stage-time"] in (b"1929-12-31T23:40:28+00:00", b"1930-01-01T00:00:00+00:00")


# --- policies


@pytest.mark.parametrize(
    ("environment", "call", "effective", "header"),
    [
        ("", None, DeliveryPolicy(), None),
        ("", {}, DeliveryPolicy(), None),
        ("thing.happened.dlq=never", None, DeliveryPolicy(dlq="never"), None),
        (
            "thing.happened.dlq=never",
            {"outbox": "never"},
            DeliveryPolicy(outbox="never", dlq="never"),
            "outbox=never",
        ),
        (
            "thing.happened.outbox=always",
            {"direct": "skip"},
            DeliveryPolicy(direct="skip", outbox="always"),
            "direct=skip",
        ),
        (
            "thing.happened.outbox=never,thing.happened.dlq=never",
            {"outbox": "always", "dlq": "on_routable_failure"},
            DeliveryPolicy(outbox="always"),
            "outbox=always;dlq=on_routable_failure",
        ),
        ("thing.happened.enabled=false", {"enabled": True}, DeliveryPolicy(), "enabled=true"),
        ("", PolicyOverride(dlq="never"), DeliveryPolicy(dlq="never"), "dlq=never"),
    ],
)
def test_precedence(
    environment: str,
    call: dict[str, object] | PolicyOverride | None,
    effective: DeliveryPolicy,
    header: str | None,
) -> None:
    """Definition < environment < call, field by field; the record carries the call's part alone (D4, S10)."""
    event = checker(event_policies=environment).check("thing.happened", None, policy=call)
    assert event.policy == effective
    assert headers_of(event).get("stage-policy") == (None if header is None else header.encode())


@pytest.mark.parametrize(
    "policy", [{"direct": "skip"}, {"outbox": "sometimes"}, {"retries": 3}, {"enabled": 1}]
)
def test_bad_policies(policy: dict[str, object]) -> None:
    """A policy that cannot be is a caller error (D3, S4)."""
    assert isinstance(refusal(policy=policy), PolicyError)


# --- headers, and the record as a whole


def test_own_headers() -> None:
    """A caller's headers are kept as they are: order, repetition, any bytes (S1)."""
    pairs: list[tuple[str, str | bytes]] = [
        ("b", "2"),
        ("a", b"\x00\xff"),
        ("b", "é"),
        ("traceparent", "00-1-2-01"),
    ]
    headers = check(headers=pairs).headers
    assert headers[-4:] == [
        ("b", b"2"),
        ("a", b"\x00\xff"),
        ("b", "é".encode()),
        ("traceparent", b"00-1-2-01"),
    ]


@pytest.mark.parametrize(
    "name", ["stage-id", "stage-anything", "ce_id", "ce-id", "dlq-x", "park-x", "content-type"]
)
def test_reserved_headers(name: str) -> None:
    """A caller cannot forge what belongs to the pipeline (S4)."""
    error = refusal(headers={name: "x"})
    assert isinstance(error, InvalidField)
    assert name in str(error)


@pytest.mark.parametrize(
    "headers",
    [
        {"": "x"},
        {"a\r\nb": "x"},
        {"a": "x\x00"},
        {"é" * 129: "x"},
        {"a": "x" * 65_537},
        {"a": b"x" * 65_537},
        [("a", "x")] * 101,
        {"a": 5},
        {5: "a"},
        {"a": None},
        ["a", "b"],
        [("a", "b", "c")],
    ],
)
def test_hostile_headers(headers: object) -> None:
    """Headers that are too many, too long, malformed or no headers at all are refused by name (S4)."""
    error = refusal(headers=headers)
    assert isinstance(error, InvalidField)
    assert error.field.startswith("headers")


@pytest.mark.parametrize(
    ("key", "tenant", "subject", "partition_key"),
    [
        ("clock.ticked", "t", "s", b"system:ticked"),
        ("thing.happened", "t", "s", b"t"),
        ("thing.happened", "", "s", b"s"),
        ("thing.happened", None, "", b"the-id"),
    ],
)
def test_partition_key(key: str, tenant: str | None, subject: str | None, partition_key: bytes) -> None:
    """System event, else tenant, else subject, else id; never empty (T3)."""
    assert check(key, tenant=tenant, subject=subject, id="the-id").key == partition_key


def test_the_whole_record() -> None:
    """The staging record has these headers and no others (S10)."""
    event = check(
        payload={"a": 1},
        tenant="t",
        subject="s",
        id="i",
        time=datetime(2026, 1, 2, tzinfo=UTC),
        policy={"dlq": "never"},
    )
    headers = headers_of(event)
    assert len(headers.pop("stage-catalog")) == 16
    assert headers == {
        "stage-version": b"1",
        "stage-definition": b"thing.happened",
        "stage-id": b"i",
        "stage-time": b"2026-01-02T00:00:00+00:00",
        "stage-source": SOURCE.encode(),
        "stage-tenant": b"t",
        "stage-subject": b"s",
        "stage-policy": b"dlq=never",
    }
    assert event.value == b'{"a":1}'
