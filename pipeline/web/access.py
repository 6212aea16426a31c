"""Who may ask for what on the pages: tokens, sessions, origins. Pure (O3).

Owns: that decision. Must not know: aiohttp, what is behind a page, who logs a refusal.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

__all__ = ["Access", "Asked", "Reason", "Refusal", "Tokens"]


class Reason(StrEnum):
    """Why a request is refused; the label of the metric."""

    NO_TOKEN = "no_token"  # noqa: S105 -- a word, no secret
    WRONG_TOKEN = "wrong_token"  # noqa: S105
    OTHER_ORIGIN = "other_origin"
    NO_CSRF_TOKEN = "no_csrf_token"  # noqa: S105
    BAD_BODY = "bad_body"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that is refused: the HTTP status, and a sentence that says what to do."""

    reason: Reason
    status: int
    message: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What the decision needs to know of a request. Absent headers are empty."""

    changes: bool
    """Whether it is to change something."""
    host: str
    origin: str
    authorization: str
    session: str
    """The name of the token a valid session was opened with."""
    csrf_expected: str
    csrf_given: str


class Tokens:
    """The tokens there are, by the SHA-256 of each."""

    def __init__(self, tokens: Iterable[str]) -> None:
        split = (entry.rpartition(":") for entry in tokens)
        self._names = {digest: name for name, _, digest in split}

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._names)

    def name_of(self, token: str) -> str:
        """Whose token it is; empty where it is nobody's. Takes as long for every wrong one."""
        asked = hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()
        found = ""
        for known, name in self._names.items():
            if hmac.compare_digest(known, asked):
                found = name
        return found


class Access:
    """Decides. `is_loopback`: whether only programs of this machine can connect, which then may read freely.

    Freely only under a name of this machine: a foreign page whose name was made to point here (DNS rebinding)
    asks under its own, and so does everybody who comes through a proxy.
    """

    def __init__(self, tokens: Tokens, *, is_loopback: bool) -> None:
        self._tokens = tokens
        self._is_loopback = is_loopback

    def decide(self, asked: Asked) -> str | Refusal:
        """The name of who asks, empty for a reader without one; or why the request is refused."""
        scheme, _, given = asked.authorization.partition(" ")
        if asked.authorization:
            name = self._tokens.name_of(given.strip()) if scheme.lower() == "bearer" else ""
            if not name:
                return Refusal(Reason.WRONG_TOKEN, 401, "this token is not one of STREAMING_ADMIN_TOKENS")
        else:
            name = asked.session
        if not asked.changes:
            if name or (self._is_loopback and is_local(asked.host)):
                return name
            return Refusal(Reason.NO_TOKEN, 401, f"reading needs a token here; {_HOW}")
        if not self._is_same_origin(asked):
            return Refusal(Reason.OTHER_ORIGIN, 403, "the request comes from a page of another origin")
        if not name:
            return Refusal(Reason.NO_TOKEN, 401, f"changing something needs a token; {_HOW}")
        if not asked.authorization and not _same(asked.csrf_given, asked.csrf_expected):
            return Refusal(
                Reason.NO_CSRF_TOKEN, 403, "the form was not opened in this session: load the page again"
            )
        return name

    def login(self, asked: Asked, token: str) -> str | Refusal:
        """Whose token was given on the login form; or why nobody is let in."""
        if not asked.origin or not self._is_same_origin(asked):
            return Refusal(Reason.OTHER_ORIGIN, 403, "the request comes from a page of another origin")
        name = self._tokens.name_of(token)
        if name:
            return name
        return Refusal(Reason.WRONG_TOKEN, 401, "this token is not one of STREAMING_ADMIN_TOKENS")

    @staticmethod
    def _is_same_origin(asked: Asked) -> bool:
        # The scheme is not compared: behind a proxy that ends TLS the page's is another.
        return not asked.origin or _same(urlsplit(asked.origin).netloc.lower(), asked.host.lower())


_HOW = "send `Authorization: Bearer <token>`, or log in"


def is_local(host: str) -> bool:
    """Whether a Host header names this machine's loopback."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return name.lower() == "localhost"


def _same(one: str, other: str) -> bool:
    return bool(one) and hmac.compare_digest(one.encode(errors="replace"), other.encode(errors="replace"))
