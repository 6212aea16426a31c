"""Who may ask the pages for what: the pure decision, over every way a request can be wrong (O3)."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from pipeline.web.access import Access, Asked, Reason, Refusal, Tokens
from pipeline.web.sessions import Sessions

TOKENS = Tokens(
    (f"ann:{hashlib.sha256(b'secret').hexdigest()}", f"bot:{hashlib.sha256(b'other').hexdigest()}")
)
LOCAL = Access(TOKENS, is_loopback=True)
OPEN = Access(TOKENS, is_loopback=False)
READ = Asked(
    changes=False,
    host="localhost:6066",
    origin="",
    authorization="",
    session="",
    csrf_expected="",
    csrf_given="",
)
FORM = replace(
    READ, changes=True, origin="http://localhost:6066", session="ann", csrf_expected="c", csrf_given="c"
)
PROGRAM = replace(READ, changes=True, authorization="Bearer secret")


def reason(decision: str | Refusal) -> Reason:
    """Why a request was refused."""
    assert isinstance(decision, Refusal)
    return decision.reason


@pytest.mark.parametrize("host", ["localhost:6066", "127.0.0.1:6066", "[::1]:6066", "[::1]", "LOCALHOST"])
def test_on_loopback_everybody_reads(host: str) -> None:
    """O3: while only this machine reaches the pages, reading needs no token."""
    assert LOCAL.decide(replace(READ, host=host)) == ""


@pytest.mark.parametrize("host", ["evil.example:6066", "10.0.0.5", "localhost.evil.example", ""])
def test_a_foreign_name_reads_nothing_without_a_token(host: str) -> None:
    """O3: a foreign page whose name was made to point at this machine, or a proxy, needs a token to read."""
    assert reason(LOCAL.decide(replace(READ, host=host))) is Reason.NO_TOKEN
    assert LOCAL.decide(replace(READ, host=host, authorization="Bearer secret")) == "ann"


def test_beyond_loopback_reading_needs_a_token() -> None:
    """O3: where other machines reach the pages, reading needs a token or a session too."""
    assert reason(OPEN.decide(READ)) is Reason.NO_TOKEN
    assert OPEN.decide(replace(READ, authorization="bearer other")) == "bot"
    assert OPEN.decide(replace(READ, session="ann")) == "ann"


@pytest.mark.parametrize(
    "authorization", ["Bearer wrong", "Bearer ", "Bearer", "Basic secret", "secret", "Bearer secret\udcff"]
)
def test_a_wrong_token_is_refused_even_where_none_is_needed(authorization: str) -> None:
    """O3: who shows a token shows one that is known, and only as a bearer token; a session does not mend it."""
    for asked in (READ, FORM, PROGRAM):
        decision = LOCAL.decide(replace(asked, authorization=authorization))
        assert reason(decision) in {Reason.WRONG_TOKEN}


def test_changing_needs_a_name() -> None:
    """O3: nobody changes anything without a token or a session, on loopback neither; a program needs no more."""
    assert LOCAL.decide(PROGRAM) == "ann"
    assert LOCAL.decide(FORM) == "ann"
    assert reason(LOCAL.decide(replace(PROGRAM, authorization=""))) is Reason.NO_TOKEN
    assert reason(LOCAL.decide(replace(FORM, session="", csrf_expected=""))) is Reason.NO_TOKEN


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:6067", "http://localhost"]
)
def test_another_origin_changes_nothing(origin: str) -> None:
    """O3: a form or script of another origin is refused, whatever token or session comes with it."""
    for asked in (FORM, PROGRAM):
        assert reason(LOCAL.decide(replace(asked, origin=origin))) is Reason.OTHER_ORIGIN


@pytest.mark.parametrize("given", ["", "wrong"])
def test_a_session_changes_nothing_without_its_csrf_token(given: str) -> None:
    """O3: a browser's session proves nothing alone: the form must carry the session's own token."""
    assert reason(LOCAL.decide(replace(FORM, csrf_given=given))) is Reason.NO_CSRF_TOKEN
    assert reason(LOCAL.decide(replace(FORM, csrf_given="", csrf_expected=""))) is Reason.NO_CSRF_TOKEN


def test_a_proxy_that_ends_tls_is_the_same_origin() -> None:
    """O3: the scheme of an origin is the proxy's; host and port decide."""
    asked = replace(FORM, host="pages.example", origin="https://pages.example")
    assert OPEN.decide(asked) == "ann"


def test_the_login_form_lets_in_whoever_has_a_token() -> None:
    """O3: a known token from our own page opens a session; an unknown one, or another page, does not."""
    asked = replace(READ, origin="http://localhost:6066", changes=True)
    assert OPEN.login(asked, "secret") == "ann"
    assert reason(OPEN.login(asked, "wrong")) is Reason.WRONG_TOKEN
    assert reason(OPEN.login(replace(asked, origin="http://evil.example"), "secret")) is Reason.OTHER_ORIGIN
    assert reason(OPEN.login(replace(asked, origin=""), "secret")) is Reason.OTHER_ORIGIN


def test_a_session_lasts_twelve_hours_and_ends_with_its_worker() -> None:
    """O3: a browser that has shown a token need not for twelve hours, at this worker and until it ends."""
    sessions = Sessions()
    secret = sessions.start("ann", 100.0)
    found = sessions.find(secret, 100.0 + 12 * 3600 - 1)
    assert found is not None
    assert (found.name, sessions.find(secret, 100.0 + 12 * 3600)) == ("ann", None)
    assert Sessions().find(secret, 100.0) is None
    assert sessions.find("another", 100.0) is None
