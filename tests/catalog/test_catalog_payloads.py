"""Payload validation: what passes, what is refused, and that a refusal repeats no value (S4)."""

from __future__ import annotations

import datetime as dt

import pytest
from pydantic import BaseModel, ConfigDict, field_validator

from catalog.errors import PayloadRefused
from catalog.payloads import PayloadValidator, validator_of
from tests.catalog.catalog_builders import definition

SECRET = "s3cr3t"


class Line(BaseModel):
    """One line of an order."""

    article: str
    count: int


class Order(BaseModel):
    """A strict payload with nesting, free keys and a validator of its own."""

    model_config = ConfigDict(strict=True, extra="forbid")

    number: int
    price: float = 0.0
    at: dt.datetime | None = None
    lines: list[Line] = []
    labels: dict[str, int] = {}
    colour: str = "red"

    @field_validator("colour")
    @classmethod
    def _known(cls, colour: str) -> str:
        """Accept red only."""
        if colour == "crash":
            raise KeyError(colour)
        if colour != "red":
            raise ValueError(f"no such colour: {colour}")
        return colour


SCHEMA = {
    "type": "object",
    "required": ["number", "at"],
    "additionalProperties": False,
    "properties": {
        "number": {"type": "integer"},
        "at": {"type": "string", "format": "date-time"},
        "hour": {"type": "string", "format": "time"},
        "link": {"type": "string", "format": "uri"},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
        "labels": {"type": "object", "additionalProperties": {"type": "integer"}},
    },
    "$defs": {"line": {"type": "object", "properties": {"count": {"type": "integer"}}}},
}


def reason(validator: PayloadValidator, body: bytes | None) -> str:
    """Return why `body` is refused."""
    with pytest.raises(PayloadRefused) as caught:
        validator.check(body)
    assert caught.value.key == "order.created"
    assert SECRET not in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("body", [b"{}", b" [1, 2.5e3] ", b"null", b'"\xc3\xa9"', b"1" * 40])
def test_any_json_passes(body: bytes) -> None:
    """Without a payload model any JSON passes under a JSON content type (S4)."""
    validator_of(definition()).check(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"s3cr3t",
        b"{'s3cr3t': 1}",
        b'{"s3cr3t": 1,}',
        b"NaN",
        b'{"a": -Infinity}',
        b'"s3cr3t\xff"',
        b'"\\ud800"',
        b"\xef\xbb\xbf{}",
        b'{"a": 1} s3cr3t',
        b"01",
        b"[" * 100_000,
    ],
)
@pytest.mark.parametrize("payload", [None, Order, SCHEMA], ids=["any", "model", "schema"])
def test_not_json(body: bytes, payload: object) -> None:
    """What RFC 8259 does not allow is refused whatever describes the payload (S4)."""
    assert reason(validator_of(definition(payload=payload)), body).startswith("not JSON")


def test_nan_inside_a_model() -> None:
    """pydantic alone would read NaN and Infinity; they are refused, but as text they pass (S4)."""
    validator = validator_of(definition(payload=Order))
    assert reason(validator, b'{"number": 1, "price": NaN}').startswith("not JSON")
    validator = validator_of(definition(payload=Line))
    validator.check(b'{"article": "NaN Infinity", "count": 1}')


@pytest.mark.parametrize("body", [b"", b"\xff\x00", b"{"])
def test_other_content_types_are_opaque(body: bytes) -> None:
    """Bytes of a content type that is not JSON are nobody's business (S1)."""
    validator_of(definition(content_type="application/avro")).check(body)


def test_no_data() -> None:
    """An event without data passes unless a payload is declared (S1, S4)."""
    validator_of(definition()).check(None)
    validator_of(definition(content_type="text/plain")).check(None)
    for payload in (Order, SCHEMA):
        assert "no data" in reason(validator_of(definition(payload=payload)), None)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", "number: missing"),
        (b'{"number": "s3cr3t"}', "number: int_type"),
        (b'{"number": 1, "s3cr3t": 1}', "*: extra_forbidden"),
        (b'{"number": 1, "lines": [{"article": "x"}]}', "lines[0].count: missing"),
        (b'{"number": 1, "labels": {"s3cr3t": "x"}}', "labels.*: int_type"),
        (b'{"number": 1, "colour": "s3cr3t"}', "colour: value_error"),
        (b'"s3cr3t"', "(root): model_type"),
        (b'{"number": 1, "colour": "crash"}', "its validator failed with KeyError"),
    ],
)
def test_model_mismatch(body: bytes, expected: str) -> None:
    """A refusal by a model names location and rule, never a value or a name from the payload (S4)."""
    assert expected == reason(validator_of(definition(payload=Order)), body)


def test_model_accepts_json_forms() -> None:
    """Strict models take dates as JSON can give them: as text (S4)."""
    validator_of(definition(payload=Order)).check(b'{"number": 1, "at": "2026-01-01T00:00:00Z"}')


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", "(root): required number, at"),
        (b'{"number": 1}', "(root): required at"),
        (b'{"number": "s3cr3t", "at": "2026-01-01T00:00:00Z"}', "number: type"),
        (b'{"number": 1, "at": "s3cr3t"}', "at: format"),
        (b'{"number": 1, "at": "2026-02-30T00:00:00Z"}', "at: format"),
        (b'{"number": 1, "at": "2026-02-01T00:00:00"}', "at: format"),
        (b'{"number": 1, "at": "2026-02-01T00:00:00Z", "hour": "25:00:00Z"}', "hour: format"),
        (b'{"number": 1, "at": "2026-02-01T00:00:00Z", "link": "s3cr3t"}', "link: format"),
        (b'{"number": 1, "at": "2026-02-01T00:00:00Z", "s3cr3t": 1}', "(root): additionalProperties"),
        (
            b'{"number": 1, "at": "2026-02-01T00:00:00Z", "lines": [{}, {"count": ""}]}',
            "lines[1].count: type",
        ),
        (b'{"number": 1, "at": "2026-02-01T00:00:00Z", "labels": {"s3cr3t": ""}}', "labels.*: type"),
        (b'"s3cr3t"', "(root): type"),
    ],
)
def test_schema_mismatch(body: bytes, expected: str) -> None:
    """A refusal by a JSON Schema names location and rule only; formats are checked (S4)."""
    assert expected == reason(validator_of(definition(payload=SCHEMA)), body)


def test_schema_match() -> None:
    """What the schema allows passes, formats included (S4)."""
    body = b'{"number": 1, "at": "2026-02-01t00:00:00.123456789+01:00", "hour": "10:00:00Z", "link": "urn:a"}'
    validator_of(definition(payload=SCHEMA)).check(body)


def test_formats_concern_text_only() -> None:
    """A format says nothing about a number (JSON Schema, 7.1)."""
    formats = ("date-time", "time", "uri")
    schema = {"allOf": [{"format": name} for name in formats]}
    validator_of(definition(payload=schema)).check(b"7")


@pytest.mark.parametrize("payload", [Order, {"additionalProperties": {"type": "integer"}}])
def test_long_lists_are_cut(payload: object) -> None:
    """A payload with a hundred faults is refused in one short line (S4)."""
    members = ", ".join(f'"{SECRET}{number}": "x"' for number in range(100))
    text = reason(validator_of(definition(payload=payload)), b"{" + members.encode() + b"}")
    assert len(text) < 200


def test_many_reasons() -> None:
    """Five reasons are shown, and that there are more (S4)."""
    lines = ", ".join(["{}"] * 9)
    text = reason(validator_of(definition(payload=Order)), f'{{"number": 1, "lines": [{lines}]}}'.encode())
    assert text.count("missing") == 5
    assert text.endswith("; and more")


def test_endless_schema() -> None:
    """A schema that never ends gives a refusal, not a crash (S4)."""
    assert "RecursionError" in reason(validator_of(definition(payload={"$ref": "#"})), b"1")
