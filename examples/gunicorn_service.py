"""A service without an event loop: a WSGI application, as one of Flask or Django is, in the processes of gunicorn.

gunicorn --preload --workers 4 --threads 8 examples.gunicorn_service:application

POST /?key=<definition>&tenant=<tenant>&id=<id> with the payload as body. Each process makes its own stager on the
first call, so that it does not matter what was imported before gunicorn forked; all share one STREAMING_OUTBOX_DIR.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from pipeline import StagepostError, is_caller_error, stage_blocking

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

__all__ = ["application"]


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer 200 once the event is durable, 400 where it is wrong by itself, 503 where to call again, same id."""
    fields = dict(parse_qsl(environ["QUERY_STRING"]))
    payload = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    try:
        staged = stage_blocking(
            fields.get("key", ""), payload, tenant=fields.get("tenant"), id=fields.get("id")
        )
    except StagepostError as error:
        status = "400 Bad Request" if is_caller_error(error) else "503 Service Unavailable"
        answer: dict[str, object] = {"error": str(error)}
    else:
        status, answer = "200 OK", staged._asdict()
    body = json.dumps(answer).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
