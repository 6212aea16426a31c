"""Payloads: which are taken, as which bytes, and how many of them (S1, S4, S5)."""

from __future__ import annotations

import json
from functools import lru_cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import NO_DATA
from pipeline.client.event import EventChecker
from pipeline.errors import (
    PayloadRefused,
    RecordTooLarge,
    is_caller_error,
)
from tests.client.client_events import Invoice, Order, checker, settings
from tests.client.event_checks import LEGAL, check, refusal

# --- payloads


@pytest.mark.parametrize("raw", [b" {\r\n } ", bytearray(b"[1]"), memoryview(b"1.0e0"), b'"\xc3\xa9"'])
def test_bytes_are_sent_as_they_are(raw: bytes | bytearray | memoryview) -> None:
    """Bytes are sent byte for byte, whatever holds them (S1)."""
    assert check(payload=raw).value == bytes(raw)


@given(st.binary(max_size=300))
def test_any_bytes(raw: bytes) -> None:
    """Where the content type is not JSON, any bytes pass, byte for byte (S1)."""
    assert check("thing.raw", raw).value == raw


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(LEGAL),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(LEGAL), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_any_json(payload: object) -> None:
    """Anything JSON is encoded once: decoding gives it back (S1)."""
    value = check(payload=payload).value
    assert value is not None
    assert json.loads(value) == payload


def test_null_and_no_data() -> None:
    """`None` is JSON `null`; `NO_DATA` is no value at all (S1)."""
    assert check(payload=None).value == b"null"
    assert check(payload=NO_DATA).value is None
    assert isinstance(refusal("thing.modelled", NO_DATA), PayloadRefused)


@pytest.mark.parametrize(
    "payload",
    [
        float("nan"),
        [1.0, {"deep": float("-inf")}],
        b"NaN",
        b"",
        b"{",
        b"{} {}",
        b"\xff",
        "\ud800",
        object(),
        {"handler": print},
        lambda: None,
    ],
)
def test_what_is_not_json(payload: object) -> None:
    """A JSON content type takes no NaN, no broken JSON and nothing that cannot be written (S4)."""
    error = refusal(payload=payload)
    assert isinstance(error, PayloadRefused)
    assert error.key == "thing.happened"


def test_endless_payloads_are_refused() -> None:
    """What holds itself, or is nested without end, is a caller error, not an accident (S4)."""
    circle: list[object] = []
    circle.append(circle)
    assert isinstance(refusal(payload=circle), PayloadRefused)
    assert isinstance(refusal(payload=b"[" * 200_000), PayloadRefused)


@pytest.mark.parametrize(
    "payload",
    [
        Order(number=1, noteText="x"),
        {"number": 1, "noteText": "x"},
        b'{"number":1, "noteText":"x"}',
        {"number": 1},
    ],
)
def test_models(payload: object) -> None:
    """An instance of the model, or JSON that fits it, passes; an instance is written by its aliases (S1)."""
    value = check("thing.modelled", payload).value
    assert value is not None
    assert Order.model_validate_json(value).number == 1
    if isinstance(payload, Order):
        assert b'"noteText":"x"' in value


def never_validated(**fields: object) -> Order:
    """An instance that nobody has looked at."""
    return Order.model_construct(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "payload",
    [
        Invoice(number=1),
        {"number": "one"},
        {"number": 1, "extra": 2},
        {},
        None,
        b'{"number":1,"total":NaN}',
        never_validated(number="one"),
        never_validated(number=1, total=object()),
    ],
)
def test_model_mismatch(payload: object) -> None:
    """Another model, other JSON, or an instance that was never validated is refused (S4)."""
    error = refusal("thing.modelled", payload)
    assert isinstance(error, PayloadRefused)
    assert "thing.modelled" in str(error)


def test_json_schema() -> None:
    """A definition with a JSON Schema takes what fits it, from a model too, and names what does not (S4)."""
    assert check("thing.schemed", {"number": 1, "more": True}).value == b'{"number":1,"more":true}'
    assert check("thing.schemed", Invoice(number=3)).value == b'{"number":3}'
    error = refusal("thing.schemed", {"number": "secret"})
    assert isinstance(error, PayloadRefused)
    assert "number" in error.reason
    assert "secret" not in str(error)


# --- sizes


@lru_cache
def small() -> EventChecker:
    """A checker with caps that a test can reach."""
    return checker(max_payload_bytes=4_000, max_record_bytes=4_100)


def test_payload_cap() -> None:
    """The payload may have MAX_PAYLOAD_BYTES and not one more; 1,000,000 unless set (S5)."""
    assert settings().max_payload_bytes == 1_000_000
    assert check("thing.raw", b"x" * 1_000_000).value == b"x" * 1_000_000
    error = refusal("thing.raw", b"x" * 1_000_001)
    assert isinstance(error, RecordTooLarge)
    assert (error.size, error.limit) == (1_000_001, 1_000_000)
    assert "STREAMING_MAX_PAYLOAD_BYTES" in str(error)
    assert isinstance(refusal(payload="é" * 500_000), RecordTooLarge)  # in bytes, with the quotes


def test_payload_cap_is_the_setting() -> None:
    """MAX_PAYLOAD_BYTES is the cap in force (E)."""
    strict = checker(max_payload_bytes=10)
    assert strict.check("thing.raw", b"x" * 10).value == b"x" * 10
    with pytest.raises(RecordTooLarge) as caught:
        strict.check("thing.raw", b"x" * 11)
    assert caught.value.limit == 10


@pytest.mark.parametrize("headers", [None, {"own": "é" * 20}])
@pytest.mark.parametrize("subject", ["s", "語" * 300])
def test_record_cap(subject: str, headers: dict[str, str] | None) -> None:
    """Key, value and headers together may have MAX_RECORD_BYTES and not one byte more (S5)."""
    empty = small().check("thing.raw", b"", subject=subject, headers=headers)
    rest = len(empty.key) + sum(len(name.encode()) + len(value) for name, value in empty.headers)
    fits = small().check("thing.raw", b"x" * (4_100 - rest), subject=subject, headers=headers)
    assert fits.value is not None
    with pytest.raises(RecordTooLarge) as caught:
        small().check("thing.raw", b"x" * (4_101 - rest), subject=subject, headers=headers)
    assert (caught.value.size, caught.value.limit) == (4_101, 4_100)
    assert "STREAMING_MAX_RECORD_BYTES" in str(caught.value)
    assert is_caller_error(caught.value)
