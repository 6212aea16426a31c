"""The gate every request passes: it asks `access`, and counts and logs what is refused (O3).

Owns: cookies, the login form, the record of refusals. Must not know: pages.
"""

from __future__ import annotations

import logging
from urllib.parse import urlencode, urlsplit

from aiohttp import web

from pipeline.clock import Clock
from pipeline.metrics import WEB_REFUSED, Metrics
from pipeline.settings import Settings
from pipeline.web.access import Access, Asked, Reason, Refusal, Tokens
from pipeline.web.sessions import SESSION_S, Session, Sessions
from pipeline.web.showing import harmless

__all__ = ["CSRF_FIELD", "Gate"]

log = logging.getLogger(__name__)

CSRF_FIELD = "csrf"
_CSRF_HEADER = "X-CSRF-Token"
_LOG_EVERY_S = 10.0
_SHOWN_CHARS = 200


class Gate:
    """Lets requests in, or says why not."""

    def __init__(self, settings: Settings, metrics: Metrics, clock: Clock) -> None:
        self.tokens = Tokens(settings.admin_tokens)
        self._access = Access(self.tokens, is_loopback=settings.web_is_loopback)
        self._sessions = Sessions()
        # Browsers share cookies between the ports of a host: each worker has its own.
        self._cookie = f"stagepost-{settings.web_port}"
        self._metrics = metrics
        for reason in Reason:  # from zero: an alert must see the first ones as an increase
            metrics.add(WEB_REFUSED, 0, reason)
        self._clock = clock
        self._logged: dict[Reason, tuple[float, int]] = {}

    def session(self, request: web.Request) -> Session | None:
        """The session of the browser that asks."""
        secret = request.cookies.get(self._cookie, "")
        return self._sessions.find(secret, self._clock.monotonic()) if secret else None

    def decide(
        self, request: web.Request, csrf_given: str = "", *, changes: bool, note: bool = True
    ) -> str | Refusal:
        """The name of who asks, or why the request is refused; counted and logged then, if `note`."""
        decision = self._access.decide(self._asked(request, csrf_given, changes=changes))
        if note and isinstance(decision, Refusal):
            self.refused(request, decision.reason)
        return decision

    def refused(self, request: web.Request, reason: Reason) -> None:
        """Count a refusal; log it, of each reason one line in ten seconds with the number of those between."""
        self._metrics.add(WEB_REFUSED, 1, reason)
        now = self._clock.monotonic()
        last, silent = self._logged.get(reason, (-_LOG_EVERY_S, 0))
        if now - last < _LOG_EVERY_S:
            self._logged[reason] = (last, silent + 1)
            return
        self._logged[reason] = (now, 0)
        log.warning(
            "web.refused reason=%s method=%s path=%r remote=%s not_logged=%d",
            reason,
            request.method,
            harmless(request.path[:_SHOWN_CHARS]),
            request.remote,
            silent,
        )

    async def log_in(self, request: web.Request) -> web.Response:
        """Open a session for the token in a form, and go on to where the browser wanted to go."""
        form = await request.post()
        asked = self._asked(request, "", changes=True)
        decision = self._access.login(asked, str(form.get("token", "")).strip())
        onward = _local(str(form.get("next", "")))
        if isinstance(decision, Refusal):
            self.refused(request, decision.reason)
            raise web.HTTPSeeOther("/login?" + urlencode({"next": onward, "refused": decision.reason}))
        log.info("web.login name=%s remote=%s", decision, request.remote)
        response = web.Response(status=303, headers={"Location": onward})
        secret = self._sessions.start(decision, self._clock.monotonic())
        response.set_cookie(
            self._cookie,
            secret,
            max_age=SESSION_S,
            httponly=True,
            samesite="Lax",
            secure=request.secure or request.headers.get("X-Forwarded-Proto") == "https",
        )
        return response

    async def log_out(self, request: web.Request) -> web.Response:
        """End the browser's session."""
        form = await request.post()
        decision = self.decide(request, str(form.get(CSRF_FIELD, "")), changes=True)
        if isinstance(decision, str):
            self._sessions.end(request.cookies.get(self._cookie, ""))
        response = web.Response(status=303, headers={"Location": "/"})
        response.del_cookie(self._cookie)
        return response

    def _asked(self, request: web.Request, csrf_given: str, *, changes: bool) -> Asked:
        session = self.session(request)
        return Asked(
            changes=changes,
            host=request.host or "",
            origin=request.headers.get("Origin", ""),
            authorization=request.headers.get("Authorization", ""),
            session=session.name if session else "",
            csrf_expected=session.csrf if session else "",
            csrf_given=csrf_given or request.headers.get(_CSRF_HEADER, ""),
        )


def _local(path: str) -> str:
    """A path of ours to go on to; `/` for anything else."""
    parts = urlsplit(path)
    fine = (
        path.startswith("/")
        and not path.startswith(("//", "/\\"))
        and not parts.netloc
        and path.isprintable()
    )
    return path if fine else "/"
