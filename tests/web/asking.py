"""Asking a worker's pages as programs and browsers do, over plain HTTP.

Owns: requests, cookies, the worker of these tests. Must not know: what any test is about.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
from collections.abc import Mapping
from copy import copy
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlencode

from tests.worker_harness import WorkerProcess

TOKEN = "a-token-of-ann"
TOKENS = f"ann:{hashlib.sha256(TOKEN.encode()).hexdigest()}"
HTML = "text/html,application/xhtml+xml,*/*;q=0.8"
JSON = "application/json"


class Answered(NamedTuple):
    """A response."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def data(self) -> Any:
        """The JSON in it."""
        return json.loads(self.text)


class Site:
    """The pages of one worker, asked by one program or one browser, which keeps its cookies."""

    def __init__(self, worker: WorkerProcess) -> None:
        self.port = worker.web_port
        self.host = f"127.0.0.1:{self.port}"
        self.cookies: dict[str, str] = {}

    def get(self, path: str, accept: str = JSON, **headers: str) -> Answered:
        """GET."""
        return self._ask("GET", path, None, {"Accept": accept, **headers})

    def stranger(self) -> Site:
        """The same pages, asked by somebody without these cookies."""
        other = copy(self)
        other.cookies = {}
        return other

    def post(
        self,
        path: str,
        body: object = None,
        token: str | None = TOKEN,
        raw: bytes | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> Answered:
        """POST JSON, as a program with this token."""
        given = {"Accept": JSON, "Content-Type": JSON, **headers}
        if token is not None:
            given.setdefault("Authorization", f"Bearer {token}")
        return self._ask("POST", path, raw if raw is not None else json.dumps(body or {}).encode(), given)

    def submit(self, path: str, fields: Mapping[str, str], **headers: str) -> Answered:
        """POST a form, as a browser does from a page of this site."""
        given = {
            "Accept": HTML,
            "Origin": f"http://{self.host}",
            "Content-Type": "application/x-www-form-urlencoded",
            **headers,
        }
        return self._ask("POST", path, urlencode(fields).encode(), given)

    def log_in(self) -> str:
        """Open a session; returns the CSRF token of its forms."""
        assert self.submit("/login", {"token": TOKEN, "next": "/"}).status == 303
        return self.csrf()

    def csrf(self) -> str:
        """The CSRF token in the forms of this session."""
        found = re.search(r'name="csrf" value="([^"]+)"', self.get("/", HTML).text)
        assert found is not None
        return found[1]

    def metric(self, name: str, **labels: str) -> float:
        """The value of a metric, 0 where it is not exported."""
        shown = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        wanted = f"{name}{{{shown}}}" if shown else name
        lines = (line.rpartition(" ") for line in self.get("/metrics").text.splitlines())
        return sum(float(value) for found, _, value in lines if found == wanted)

    def _ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answered:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        cookies = {"Cookie": "; ".join(f"{k}={v}" for k, v in self.cookies.items())} if self.cookies else {}
        try:
            connection.request(method, path, body, {**cookies, **headers})
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
        finally:
            connection.close()
        for cookie in response.headers.get_all("Set-Cookie") or []:
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        return Answered(response.status, dict(response.headers), text)
