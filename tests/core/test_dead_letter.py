"""The dead letter's headers: which, in what order, clean and cut; fingerprints; what a redrive left (Q2, Q3)."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dlq import (
    MAX_MESSAGE_BYTES,
    Disposition,
    Failure,
    clean_message,
    dead_letter_headers,
    fingerprint,
)
from pipeline.errors import ErrorClass
from pipeline.record import RawHeader

FAILURE = Failure(ErrorClass.VALIDATION, "id is empty")
STAGED: list[RawHeader] = [("stage-id", b"1"), ("x", b"\xff\x00"), ("x", b"again"), ("null", None)]
FRAMED: list[RawHeader] = [("content-type", b"text/plain"), ("ce_id", b"1")]
_NAMES = [
    "dlq-source-topic",
    "dlq-error-class",
    "dlq-error-message",
    "dlq-retry-count",
    "dlq-first-failure-at",
    "dlq-producer-id",
    "dlq-staging-partition",
    "dlq-staging-offset",
    "dlq-disposition",
    "dlq-fingerprint",
]


def letter(
    original: list[RawHeader] = STAGED, framed: list[RawHeader] = FRAMED, failure: Failure = FAILURE
) -> list[RawHeader]:
    """The headers of a dead letter that failed at 1,767,323,045.25 s."""
    return dead_letter_headers(
        original,
        framed,
        failure,
        source_topic="shop.order.created",
        staging_partition=3,
        staging_offset=12_345_678_901,
        retry_count=2,
        failed_at=1_767_323_045.25,
        producer_id="w/1",
        definition="order.created",
        schema_version="1.0.0",
    )


def test_everything_in_its_order() -> None:
    """Q2: the staging headers byte for byte, then the framed ones, then the ten of ours in the given order, as text."""
    headers = letter()
    assert headers[: len(STAGED)] == STAGED
    assert headers[len(STAGED) : len(STAGED) + len(FRAMED)] == FRAMED
    ours = headers[len(STAGED) + len(FRAMED) :]
    assert [name for name, _ in ours] == _NAMES
    fields = {name: (value or b"").decode() for name, value in ours}
    assert re.fullmatch("[0-9a-f]{16}", fields.pop("dlq-fingerprint"))
    assert fields == {
        "dlq-source-topic": "shop.order.created",
        "dlq-error-class": "validation_error",
        "dlq-error-message": "id is empty",
        "dlq-retry-count": "2",
        "dlq-first-failure-at": "2026-01-02T03:04:05.250000Z",
        "dlq-producer-id": "w/1",
        "dlq-staging-partition": "3",
        "dlq-staging-offset": "12345678901",
        "dlq-disposition": "poison",
    }


def test_dispositions() -> None:
    """Q2: the three words."""
    assert [str(one) for one in Disposition] == ["poison", "systemic", "operator"]


def test_the_first_failure_is_kept_over_redrives() -> None:
    """Q3: it rides through staging, keeps its value, moves into the block, and the record does not grow."""
    first = ("dlq-first-failure-at", b"2025-12-31T23:59:59Z")
    count = ("dlq-redrive-count", b"4")
    redriven: list[RawHeader] = [STAGED[0], first, *STAGED[1:], count]
    headers = letter(redriven)
    assert [name for name, _ in headers[-len(_NAMES) :]] == _NAMES
    assert dict(headers)["dlq-first-failure-at"] == first[1]
    assert [name for name, _ in headers].count("dlq-first-failure-at") == 1
    assert headers[: len(STAGED) + 1] == [*STAGED, count]
    # What a redrive leaves of this letter fails again, and again: always the same size.
    left = [header for header in headers if not header[0].startswith("dlq-")]
    again = letter([*left[: len(STAGED)], count, first], FRAMED)
    assert len(again) == len(headers)


@pytest.mark.parametrize("forged", [b"yesterday", b"", None, b"\xff"])
def test_a_first_failure_that_is_no_time(forged: bytes | None) -> None:
    """Q2, Q3: a producer's own nonsense stays where it was, byte for byte, and ours has the time of now."""
    original: list[RawHeader] = [("dlq-first-failure-at", forged), *STAGED]
    headers = letter(original)
    assert headers[: len(original)] == original
    assert dict(headers)["dlq-first-failure-at"] == b"2026-01-02T03:04:05.250000Z"


# --- the message


@given(st.text(max_size=3000), st.sampled_from(["", "ä", "€", "😀"]))
def test_any_message_fits(text: str, filler: str) -> None:
    """Q2: at most 4,096 bytes of UTF-8, cut between characters, without control characters."""
    cleaned = clean_message(text + filler * 4096)
    encoded = cleaned.encode()
    assert len(encoded) <= MAX_MESSAGE_BYTES
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", cleaned)
    if filler:
        assert len(encoded) > MAX_MESSAGE_BYTES - 4


def test_the_cut_is_on_a_character() -> None:
    """Q2: a character that does not fit whole is left out whole."""
    assert MAX_MESSAGE_BYTES == 4096
    assert clean_message("x" * 4095 + "ä") == "x" * 4095
    assert clean_message("x" * 4094 + "ä") == "x" * 4094 + "ä"
    assert clean_message("x" * 5000) == "x" * 4096


def test_a_plain_message_is_left_alone() -> None:
    """Q2: only credentials go."""
    for message in (
        "refused by the broker: [Error 10] MessageSizeTooLargeError: shop.order.created-3",
        "the payload does not match the definition 'order.paid': cents: type",
        "see https://example.com/a/b?c=d for the bearer of bad news; no secrets, one basket of keys",
        "'//shop/web' may not stage 'payout.sent'",
    ):
        assert clean_message(message) == message


# A secret without quotes ends at the next blank; in quotes it may be anything.
_SECRET = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=40)
_BARE = _SECRET.filter(lambda secret: secret[0] not in "\"'\\" and "***" not in secret)
_QUOTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=8).map(
    lambda text: re.sub(r"[\"'\\*]", "x", text)
)
_AROUND = st.text(st.sampled_from("abc .,:=/\"'\n"), max_size=20)


def _planted(draw: st.DrawFn) -> tuple[str, str]:
    before, after = draw(_AROUND), draw(_AROUND)
    bare, quotable = draw(_BARE), draw(_QUOTABLE)
    host = draw(st.sampled_from(["db.example.com:5432/x", "h"]))
    token = draw(st.from_regex(r"[A-Za-z0-9._-]{12,40}", fullmatch=True))
    aws = draw(st.from_regex(r"(AKIA|ASIA)[0-9A-Z]{16}", fullmatch=True))
    name = draw(
        st.sampled_from(
            [
                "password",
                "PASSWORD",
                "sasl_password",
                "passwd",
                "passphrase",
                "pwd",
                "client_secret",
                "secret-key",
                "api_key",
                "apikey",
                "aws_secret_access_key",
                "AccountKey",
                "auth_token",
                "credentials",
            ]
        )
    )
    secret, text = draw(
        st.sampled_from(
            [
                (bare, f"{name}={bare}"),
                (bare, f"{name}: {bare}"),
                (bare, f"{name} = {bare}"),
                (quotable, f'{name}="{quotable}"'),
                (quotable, f"{name}='{quotable}'"),
                (quotable, f'"{name}": "{quotable}"'),
                (quotable, f"'{name}': '{quotable}'"),
                (quotable, f'\\"{name}\\": \\"{quotable}\\"'),
                (quotable, f'{name}="{quotable}'),
                (bare, f"amqp://user:{bare}@{host}"),
                (bare, f"https://{bare}@{host}"),
                (token, f"Authorization: Bearer {token}"),
                (token, f"authorization=Basic {token}"),
                (token, f"{{'Authorization': 'Bearer {token}'}}"),
                (token, f'"authorization": "{token}"'),
                (token, f"Proxy-Authorization: Digest a, response={token}"),
                (token, f"Cookie: a=b; session={token}"),
                (token, f"sent bearer {token}"),
                (aws, aws),
                (aws, f"key_{aws}x"),
                (token, f"-----BEGIN RSA PRIVATE KEY-----\n{token}\n-----END RSA PRIVATE KEY-----"),
            ]
        )
    )
    return secret, f"{before} {text} {after}" if text != aws else f"{before}{text}{after}"


@given(st.composite(_planted)())
def test_credentials_are_removed(planted: tuple[str, str]) -> None:
    """Q2: a planted secret does not come out, wherever it stands, nor any six characters of it in a row."""
    secret, message = planted
    cleaned = clean_message(message)
    assert "***" in cleaned
    rest = message.replace(secret, "", 1)
    for at in range(len(secret) - 5):
        part = secret[at : at + 6]
        assert part not in cleaned or part in rest


@pytest.mark.parametrize(
    ("message", "cleaned"),
    [
        ("amqp://user:p@ss/w?rd@host/vhost", "amqp://***@host/vhost"),
        (
            "no route to https://a:b@one, https://c:d@two now",
            "no route to https://***@one, https://***@two now",
        ),
        ('password="a b" user="x"', 'password=*** user="x"'),
        ("{'password': 'a \\' b', 'x': 1}", "{'password': ***, 'x': 1}"),
        ('{"Authorization": "Bearer a.b", "status": 401}', '{"Authorization": ***, "status": 401}'),
    ],
)
def test_what_is_left_of_a_message(message: str, cleaned: str) -> None:
    """Q2: the secret goes whole, and what stands around it stays."""
    assert clean_message(message) == cleaned


def test_a_secret_at_the_cut() -> None:
    """Q2: cleaning comes before cutting, so that no half of a secret is left at the end."""
    message = "x" * 4080 + " amqp://user:hunter2hunter2@host"
    assert "hunter" not in clean_message(message)


@pytest.mark.parametrize(
    "piece", ["a://", "password", "password=", 'token="', "a", ".", "1.", "\\", "bearer ", '"']
)
def test_cleaning_takes_linear_time(piece: str) -> None:
    """Q2: a foreign producer may write parts of a message; a long one does not stop the worker."""
    failure = Failure(ErrorClass.VALIDATION, piece * (400_000 // len(piece)))
    began = time.perf_counter()
    clean_message(failure.message)
    fingerprint(failure, "", "")
    assert time.perf_counter() - began < 3  # quadratic would be minutes


# --- fingerprints


def mark(message: str, error_class: ErrorClass = ErrorClass.VALIDATION, definition: str = "d") -> str:
    """The fingerprint of a failure."""
    return fingerprint(Failure(error_class, message), definition, "1.0.0")


@given(st.uuids(), st.uuids(), st.integers(0), st.integers(0), st.text(max_size=9), st.text(max_size=9))
def test_failures_of_one_kind_share_a_fingerprint(
    a: object, b: object, i: int, j: int, s: str, t: str
) -> None:
    """Q2: ids, numbers, addresses and quoted text do not count."""
    s, t = s.replace("'", "").replace('"', ""), t.replace("'", "").replace('"', "")
    assert mark(f"id {a} has {i:,} bytes at 0x{i:x}: '{s}' \"{t}\"") == mark(
        f"id {b} has {j:,} bytes at 0x{j:x}: '{t}' \"{s}\""
    )
    assert mark(f"id {str(a).upper()} is bad") == mark(f"id {b} is bad")


def test_failures_of_other_kinds_do_not() -> None:
    """Q2: class, words, definition and schema version count."""
    marks = {
        mark("id is empty"),
        mark("id is too long"),
        mark("id is empty", ErrorClass.SERIALIZATION),
        mark("id is empty", definition="other"),
        fingerprint(FAILURE, "d", "2.0.0"),
    }
    assert len(marks) == 5
