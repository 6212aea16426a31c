"""The site: from the list of routes to handlers of aiohttp, and from what they answer to a response.

Owns: HTML or JSON, reading queries and bodies, errors as pages, the headers of every response.
Must not know: what any page shows, who may ask for it.
"""

from __future__ import annotations

import asyncio
import logging
import types
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Union, get_args, get_origin
from urllib.parse import urlencode, urlsplit

from aiohttp import web
from aiokafka.errors import KafkaError
from pydantic import BaseModel, ValidationError

from pipeline.application import Application
from pipeline.clock import Clock
from pipeline.kafka.security import SecurityRefused
from pipeline.web.access import Reason, Refusal
from pipeline.web.gate import CSRF_FIELD, Gate
from pipeline.web.rendering import environment
from pipeline.web.route import Call, Form, Problem, Raw, Route

__all__ = ["Site"]

log = logging.getLogger(__name__)

_LIMIT_S = 25.0
_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"
_ASSETS = {"stagepost.css": "text/css", "stagepost.js": "text/javascript", "stagepost.svg": "image/svg+xml"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not `no-referrer`: with it browsers send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Vary": "Accept, Cookie, Authorization",
    "Server": "stagepost",
}
Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Site:
    """All pages of one worker."""

    def __init__(
        self,
        application: Application,
        routes: Iterable[Route],
        gate: Gate,
        clock: Clock,
        context: Mapping[str, object],
    ) -> None:
        self._application = application
        self._routes = tuple(routes)
        self._gate = gate
        self._clock = clock
        self._templates = environment()
        self._context = context

    def attach(self, app: web.Application) -> None:
        """Put everything on the web server, before it starts."""

        @web.middleware
        async def answer(request: web.Request, handler: Handle) -> web.StreamResponse:
            return await self._answer(request, handler)

        app.middlewares.append(answer)
        router = app.router
        for route in self._routes:
            router.add_route(route.method, route.path, self._handler(route))
            if route.method == "GET" and route.path.endswith("/") and route.path != "/":
                router.add_get(route.path.rstrip("/"), _add_slash)
        router.add_get("/login", self._login_page)
        router.add_post("/login", self._gate.log_in)
        router.add_post("/logout", self._gate.log_out)
        router.add_get("/assets/{name}", _asset)

    def _handler(self, route: Route) -> Handle:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._respond(route, request)

        return handle

    async def _respond(self, route: Route, request: web.Request) -> web.StreamResponse:
        changes = route.method == "POST"
        body = await _body_of(route.body, request) if changes else _Body()
        decision = self._gate.decide(request, body.csrf, changes=changes, note=not route.is_open)
        if isinstance(decision, Refusal) and not route.is_open:
            return self._refuse(request, decision)
        try:
            if body.problem is not None:
                raise body.problem
            query, given = (
                _read(route.query, _text(route.query, _lists(request.query))),
                _read(route.body, body.values),
            )
        except Problem:
            if changes:
                self._gate.refused(request, Reason.BAD_BODY)
            raise
        if not (route.is_open or self._application.is_prepared):
            raise Problem(
                503, "the worker is starting; where that takes long it waits for a broker: see its log"
            )
        may_read = not isinstance(decision, Refusal)
        by = decision if isinstance(decision, str) else ""
        call = Call(self._application, dict(request.match_info), query, given, by, may_read)
        async with asyncio.timeout(_LIMIT_S):
            answer = await route.handler(call)
        if isinstance(answer, Raw):
            return web.Response(
                body=answer.body,
                status=answer.status,
                headers={"Content-Type": answer.content_type, **(answer.headers or {})},
            )
        if _wants_json(request) or not (answer.template or answer.see):
            return _json(answer.data, answer.status)
        if answer.see:
            return web.Response(status=303, headers={"Location": answer.see})
        return self._page(request, answer.template, answer.status, data=answer.data)

    async def _answer(self, request: web.Request, handler: Handle) -> web.StreamResponse:
        """Whatever happens becomes a response with our headers, and never an error of Faust's agents."""
        try:
            response = await handler(request)
        except Problem as problem:
            response = self._error(request, problem.status, problem.message)
        except web.HTTPException as error:
            if error.status < 400:
                response = web.Response(status=error.status, headers={"Location": error.headers["Location"]})
            else:
                response = self._error(request, error.status, error.reason)
        except (KafkaError, TimeoutError, OSError) as error:
            log.warning("web.unavailable path=%r error=%r", request.path, error)
            said = str(error) or type(error).__name__
            response = self._error(request, 503, f"Kafka does not answer now: {said}")
        except SecurityRefused as error:
            log.warning("web.unavailable path=%r error=%r", request.path, error)
            response = self._error(request, 503, str(error))
        except Exception:
            log.exception("web.failed path=%r", request.path)
            response = self._error(request, 500, "the page failed; the worker's log says why")
        for name, value in _HEADERS.items():
            response.headers[name] = value
        return response

    def _refuse(self, request: web.Request, refusal: Refusal) -> web.StreamResponse:
        is_browser = "text/html" in request.headers.get("Accept", "")
        if request.method == "GET" and is_browser and "Authorization" not in request.headers:
            return web.Response(
                status=303, headers={"Location": "/login?" + urlencode({"next": request.path_qs})}
            )
        return self._error(request, refusal.status, refusal.message)

    def _error(self, request: web.Request, status: int, message: str) -> web.Response:
        headers = {"WWW-Authenticate": 'Bearer realm="stagepost"'} if status == 401 else None
        if "text/html" not in request.headers.get("Accept", ""):
            return web.json_response({"status": status, "error": message}, status=status, headers=headers)
        page = self._page(request, "error.html", status, data={"status": status, "message": message})
        page.headers.update(headers or {})
        return page

    async def _login_page(self, request: web.Request) -> web.Response:
        data = {"next": request.query.get("next", "/"), "refused": "refused" in request.query}
        return self._page(request, "login.html", 200, data=data)

    def _page(self, request: web.Request, template: str, status: int, **context: object) -> web.Response:
        session = self._gate.session(request)
        text = self._templates.get_template(template).render(
            **self._context,
            **context,
            path=request.path,
            again=_page_behind(request),
            by=session.name if session else "",
            csrf=session.csrf if session else "",
            now=self._clock.time(),
        )
        return web.Response(text=text, status=status, content_type="text/html")


def _page_behind(request: web.Request) -> str:
    """The page that a request was made for, or from: where to go on after logging in."""
    if request.method == "GET":
        return request.path_qs
    form_on = urlsplit(request.headers.get("Referer", ""))
    return form_on._replace(scheme="", netloc="", fragment="").geturl() or "/"


def _wants_json(request: web.Request) -> bool:
    accept = request.headers.get("Accept", "")
    return "text/html" not in accept and (_JSON in accept or request.method == "POST")


def _json(data: BaseModel, status: int) -> web.Response:
    return web.Response(text=data.model_dump_json(), status=status, content_type=_JSON)


@dataclass(frozen=True, slots=True)
class _Body:
    """The fields of a body, the CSRF token among them; or what is wrong with it."""

    values: Mapping[str, object] = field(default_factory=dict)
    csrf: str = ""
    problem: Problem | None = None


async def _body_of(form: type[Form], request: web.Request) -> _Body:
    if request.content_type == _FORM or not request.can_read_body:
        fields = _lists(await request.post())  # type: ignore[arg-type]
        csrf = fields.pop(CSRF_FIELD, [""])
        return _Body(_text(form, fields), csrf[-1])
    if request.content_type != _JSON:
        return _Body(problem=Problem(415, f"send {_JSON} or {_FORM}"))
    try:
        found = await request.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return _Body(problem=Problem(400, "the body is not a JSON object"))
    return _Body(found)


def _lists(values: Mapping[str, str]) -> dict[str, list[str]]:
    """Every value of each name, without the empty ones: a form sends the fields nobody filled in."""
    found: dict[str, list[str]] = {}
    for name, value in values.items():
        if value != "":
            found.setdefault(name, []).append(value)
    return found


def _read(form: type[Form], values: Mapping[str, object]) -> Form:
    """Values as the form declares them. Raises `Problem` 400 naming each that is wrong."""
    try:
        return form.model_validate(values)
    except ValidationError as error:
        wrong = (
            f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors(include_input=False)
        )
        raise Problem(400, "; ".join(wrong)) from None


def _text(form: type[Form], values: Mapping[str, list[str]]) -> dict[str, object]:
    """What came as text, where a list of one is one value, unless a list is asked for."""
    return {
        name: value[0] if len(value) == 1 and not _is_list(form, name) else value
        for name, value in values.items()
    }


def _is_list(form: type[Form], name: str) -> bool:
    field = form.model_fields.get(name)
    return field is not None and _has_list(field.annotation)


def _has_list(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, types.UnionType):
        return any(map(_has_list, get_args(annotation)))
    return get_origin(annotation) in (list, tuple)


async def _add_slash(request: web.Request) -> web.Response:
    raise web.HTTPPermanentRedirect(request.rel_url.with_path(f"{request.path}/", keep_query=True))


async def _asset(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    if name not in _ASSETS:
        raise web.HTTPNotFound
    body = files("pipeline.web").joinpath("assets", name).read_bytes()
    return web.Response(body=body, headers={"Content-Type": f"{_ASSETS[name]}; charset=utf-8"})
