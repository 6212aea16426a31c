"""Browser sessions: a cookie's value, whom it stands for, and the CSRF token of its forms (O3).

Owns: how many there are and how long they last. In memory: a restarted worker asks for the token again.
Must not know: cookies, forms.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

__all__ = ["SESSION_S", "Session", "Sessions"]

SESSION_S = 12 * 3600
_MOST = 1_000


@dataclass(frozen=True, slots=True)
class Session:
    """One browser that has shown a token. `name` is the token's."""

    name: str
    csrf: str
    until: float


class Sessions:
    """The sessions of one worker. The clock is handed in, monotonic seconds."""

    def __init__(self) -> None:
        self._open: dict[str, Session] = {}

    def start(self, name: str, now: float) -> str:
        """Open a session and return its secret, for a cookie; the oldest gives way where there are too many."""
        self._open = {key: found for key, found in self._open.items() if found.until > now}
        if len(self._open) >= _MOST:
            del self._open[next(iter(self._open))]
        secret = secrets.token_urlsafe(32)
        self._open[_key(secret)] = Session(name, secrets.token_urlsafe(32), now + SESSION_S)
        return secret

    def find(self, secret: str, now: float) -> Session | None:
        """The session of a cookie; None where it is unknown or over."""
        found = self._open.get(_key(secret))
        return found if found is not None and found.until > now else None

    def end(self, secret: str) -> None:
        """Forget a session."""
        self._open.pop(_key(secret), None)


def _key(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
