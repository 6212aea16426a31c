"""Asking a running worker over its HTTP API: what changes something goes through a worker, with a token (O2, O3).

Owns: requests, the token, what is told where no worker answers or one refuses. Must not know: what is asked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import aiohttp

from pipeline.errors import StagepostError
from pipeline.settings import Settings

__all__ = ["TOKEN_VARIABLE", "NoWorker", "WorkerApi", "WorkerRefused", "worker_at"]

TOKEN_VARIABLE = "STAGEPOST_TOKEN"  # noqa: S105 -- the name of the variable
_TIMEOUT_S = 30.0


class NoWorker(StagepostError):
    """No worker answers at this address."""

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        self.reason = reason
        super().__init__(
            f"no worker answers at {url}: {reason}; say with --url where one listens (`dlq list` and `dlq show` can do "
            "without one: --direct)"
        )


class WorkerRefused(StagepostError):
    """The worker does not do what it was asked. `status`: the HTTP status."""

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        self.reason = reason
        way_out = (
            f"; set {TOKEN_VARIABLE} or --token to one of its ADMIN_TOKENS" if status in {401, 403} else ""
        )
        super().__init__(f"the worker refuses: {reason}{way_out}")


class WorkerApi:
    """One worker's API. A context manager. Raises `NoWorker` and `WorkerRefused`. The token goes nowhere else."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        headers = {"Accept": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._headers = headers

    async def __aenter__(self) -> Self:
        """Get ready; nothing is asked yet."""
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        await self._session.close()

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """What the worker says."""
        return await self._ask("GET", path, params=dict(query or {}))

    async def post(self, path: str, body: Mapping[str, object] | None = None) -> Any:
        """What the worker says when it has done that."""
        return await self._ask("POST", path, json=dict(body or {}))

    async def _ask(self, method: str, path: str, **how: Any) -> Any:
        try:
            # A redirect would take the token along.
            async with self._session.request(
                method, self._url + path, allow_redirects=False, **how
            ) as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise NoWorker(self._url, str(error) or type(error).__name__) from None
        try:
            document = json.loads(text)
        except ValueError:
            raise NoWorker(self._url, f"what answers there is no worker (HTTP {response.status})") from None
        if response.status >= 300:
            reason = document.get("error") if isinstance(document, dict) else None
            raise WorkerRefused(response.status, str(reason or f"HTTP {response.status}"))
        return document


def worker_at(settings: Settings, url: str, token: str) -> WorkerApi:
    """The worker at `url`, by default the one of these settings; by default with the token of the environment."""
    host = f"[{settings.web_bind}]" if ":" in settings.web_bind else settings.web_bind
    host = "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 -- it is asked, not bound
    return WorkerApi(url or f"http://{host}:{settings.web_port}", token or os.environ.get(TOKEN_VARIABLE, ""))
