"""The worker's pages, on Faust's own web server, registered by name like its agents (O1, O3).

Owns: which pages there are. Must not know: how a page finds what it shows.
"""

from __future__ import annotations

from aiohttp import web

from pipeline.application import Application
from pipeline.clock import SYSTEM_CLOCK
from pipeline.errors import SettingsError
from pipeline.web import audit, breakers, catalog, dead_letters, jobs, openapi, overview, parked
from pipeline.web.gate import Gate
from pipeline.web.site import Site
from pipeline.web.vitals import Vitals

__all__ = ["register"]

_NAVIGATION = (
    ("/", "Overview"),
    ("/dlq/", "Dead letters"),
    ("/breakers/", "Breakers"),
    ("/catalog/", "Catalog"),
    ("/audit/", "Audit"),
)


def register(application: Application) -> None:
    """Have the pages served. Raises `SettingsError` where everybody could reach them and nobody has a token."""
    settings = application.settings
    if not settings.web_is_loopback and not settings.admin_tokens:
        problem = (
            f"STREAMING_WEB_BIND: {settings.web_bind} is reached from other machines, so reading needs a token too: "
            "set STREAMING_ADMIN_TOKENS, or bind to 127.0.0.1"
        )
        raise SettingsError([problem])
    clock = SYSTEM_CLOCK
    vitals = Vitals(application, clock)
    gate = Gate(settings, application.metrics, clock)
    routes = (
        *vitals.routes,
        *overview.routes(vitals, clock),
        *dead_letters.ROUTES,
        *jobs.ROUTES,
        *breakers.ROUTES,
        *parked.ROUTES,
        *catalog.ROUTES,
        *audit.ROUTES,
    )
    context = {
        "namespace": settings.namespace,
        "client_id": settings.client_id,
        "navigation": _NAVIGATION,
        "has_tokens": bool(gate.tokens),
    }
    site = Site(application, (*routes, openapi.route(routes)), gate, clock, context)

    def serve(app: web.Application) -> None:
        site.attach(app)
        app.cleanup_ctx.append(vitals.sampling)

    application.app.serve = serve
