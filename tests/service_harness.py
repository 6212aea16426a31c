"""A real service: gunicorn with several preloaded processes, and callers that call again until they hear yes.

Owns: its command, its settings, its processes, the load. Must not know: what any test is about, brokers.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.kafka_client import wait_until
from tests.process_harness import ROOT, LoggedProcess

__all__ = ["Callers", "GunicornService"]

_CALL_TIMEOUT_S = 20.0
_PAUSE_S = 0.005
"""Between two calls of a caller: a broker that starts beside them needs the processor too."""


class GunicornService(LoggedProcess):
    """gunicorn with `workers` processes that share an outbox in `folder`. A context manager: starts, waits, kills.

    `application` as gunicorn takes it; `env`: settings by full variable name, over the ones made here.
    """

    def __init__(
        self,
        bootstrap: str,
        namespace: str,
        folder: Path,
        *,
        catalog: str,
        workers: int = 4,
        application: str = "examples.gunicorn_service:application",
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.outbox = folder / "outbox"
        self.port = 0
        self._workers = workers
        command = [sys.executable, "-m", "gunicorn", "--preload", "--worker-class", "gthread"]
        command += ["--workers", str(workers), "--threads", "8", "--graceful-timeout", "20"]
        command += ["--bind", "127.0.0.1:0", "--no-control-socket", application]
        settings = {
            "PYTHONPATH": str(ROOT),
            "STREAMING_BROKERS": bootstrap,
            "STREAMING_CATALOG": catalog,
            "STREAMING_CLOUDEVENTS_SOURCE": "//tests/service",
            "STREAMING_NAMESPACE": namespace,
            "STREAMING_OUTBOX_DIR": str(self.outbox),
        }
        super().__init__(command, folder / "gunicorn.log", {**settings, **(env or {})})

    @property
    def workers(self) -> list[int]:
        """The process ids of the processes that serve now."""
        return sorted(map(int, Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()))

    def kill_workers(self, count: int) -> list[int]:
        """kill -9 to so many of the serving processes; gunicorn puts others in their place."""
        victims = self.workers[:count]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        return victims

    def start(self) -> Self:
        """Start it and wait until it listens and all processes are there."""
        super().start()
        wait_until(lambda: len(self._booted()) >= self._workers, 30.0, f"gunicorn\n{self.log_text()}")
        (self.port,) = map(int, re.findall(r"Listening at: http://127\.0\.0\.1:(\d+)", self.log_text()))
        return self

    def kill(self) -> None:
        """kill -9 to all of it, as the end of the machine."""
        if self._process is not None and self._process.poll() is None:
            workers = self.workers
            super().kill()
            for pid in workers:
                os.kill(pid, signal.SIGKILL)

    def _booted(self) -> list[str]:
        return re.findall(r"Booting worker with pid", self.log_text())


class Callers:
    """Threads that stage numbered events through the service, each its own tenant, until they are told to stop.

    An event is called for again, with the same id, until the service says that it is durable. `key`: the
    definition. A context manager that starts them, and stops them at the end.
    """

    def __init__(self, service: GunicornService, key: str, count: int) -> None:
        self.ways: Counter[str] = Counter()
        """How many events the service called durable, by the way it named."""
        self.ids: list[str] = []
        """The ids of those events."""
        self.unanswered = 0
        """How many calls broke off, or were told to come again."""
        self._service = service
        self._key = key
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._call, args=(number,)) for number in range(count)]

    def wait_for(self, via: str, more: int, timeout: float = 30.0) -> None:
        """Wait until so many more events were called durable by that way."""
        wanted = self.ways[via] + more
        wait_until(lambda: self.ways[via] >= wanted, timeout, f"{more} more events by {via}: {self.ways}")

    def __enter__(self) -> Self:
        """Begin to call."""
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        """Let each caller finish its event, and end. Can be repeated."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def _call(self, caller: int) -> None:
        number = 0
        while not self._over.is_set():
            event_id = f"{caller}-{number}"
            while (way := self._stage(f"caller-{caller}", event_id)) is None:
                if self._over.wait(0.02):
                    return  # it was never called durable
            with self._lock:
                self.ways[way] += 1
                self.ids.append(event_id)
            number += 1
            self._over.wait(_PAUSE_S)

    def _stage(self, tenant: str, event_id: str) -> str | None:
        connection = http.client.HTTPConnection("127.0.0.1", self._service.port, timeout=_CALL_TIMEOUT_S)
        try:
            connection.request("POST", f"/?key={self._key}&tenant={tenant}&id={event_id}", b'{"n": 1}')
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException):
            answer, status = {}, 0
        else:
            status = response.status
        finally:
            connection.close()
        assert status in (0, 200, 503), answer
        if status != 200:
            with self._lock:
                self.unanswered += 1
            return None
        return str(answer["via"])
