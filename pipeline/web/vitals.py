"""How the worker is: the pages `/health/live`, `/health/ready` and `/metrics`, and the samples behind them.

Owns: looking at the worker every two seconds. Must not know: what a partition waits for, or how anything is counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Literal

from aiohttp import web
from pydantic import BaseModel

from pipeline.application import Application
from pipeline.clock import Clock
from pipeline.exposition import CONTENT_TYPE, text
from pipeline.redrive.model import Overview
from pipeline.transport.readiness import Facts, Readiness, Watch
from pipeline.web.gauges import samples
from pipeline.web.history import EVERY_S, History
from pipeline.web.route import Answer, Call, Raw, Route

__all__ = ["Ready", "Vitals", "Waiting"]

log = logging.getLogger(__name__)


class Live(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Waiting(BaseModel):
    """A staging partition that waits, and for what."""

    partition: int
    cause: str


class Ready(BaseModel):
    """Whether the worker does its work; `reasons` and `waiting` are for those who may read."""

    ready: bool
    reasons: list[str] = []
    waiting: list[Waiting] = []


class Vitals:
    """Looks at one worker."""

    def __init__(self, application: Application, clock: Clock) -> None:
        self._application = application
        self._clock = clock
        self._watch = Watch()
        self.history = History(application.metrics)
        self.dead: Overview | None = None
        """The dead letters as of the last sample."""
        application.metrics.look_at(
            lambda: samples(self._application, self.facts(), self.readiness(), self.dead)
        )

    @property
    def routes(self) -> tuple[Route, ...]:
        """The pages."""
        return (
            Route("GET", "/health/live", self._live, "The process answers.", Live, is_open=True),
            Route(
                "GET", "/health/ready", self._ready, "Whether the worker does its work.", Ready, is_open=True
            ),
            Route("GET", "/metrics", self._metrics, "Metrics in Prometheus's text format."),
        )

    def facts(self) -> Facts:
        """What the consumer says of itself now."""
        if not self._application.is_prepared:
            return Facts("it is starting, and may wait for a broker", recovering=False, silent_s=0.0)
        return self._application.app.batches.facts()

    def readiness(self) -> Readiness:
        """The judgement now."""
        trouble = self._application.trouble()
        return self._watch.look(self.facts(), self._clock.monotonic(), trouble)

    async def sampling(self, _: web.Application) -> AsyncIterator[None]:
        """Take samples while the web server runs."""
        task = asyncio.create_task(self._sample_on(), name="samples for the pages")
        yield
        task.cancel()

    async def _sample_on(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            if not self._application.is_prepared:
                continue
            try:
                self._sample()
                self.dead = await self._application.dead_letters.overview()
            except Exception:  # the next one may be taken; charts are no reason to end
                log.exception("web.no_sample")

    def _sample(self) -> None:
        facts, readiness = self.facts(), self.readiness()
        known = [at.lag for at in facts.partitions if at.lag is not None]
        lag = sum(known) if known else None
        now, at = self._clock.monotonic(), self._clock.time()
        parked = sum(state.records for state in self._application.parked())
        self.history.sample(now, at, lag=lag, waiting=len(readiness.waiting), parked=parked)

    async def _live(self, _: Call) -> Answer:
        return Answer(Live())

    async def _ready(self, call: Call) -> Answer:
        found = self.readiness()
        status = 200 if found.ready else 503
        if not call.may_read:
            return Answer(Ready(ready=found.ready), status=status)
        waiting = [Waiting(partition=partition, cause=cause) for partition, cause in found.waiting]
        return Answer(Ready(ready=found.ready, reasons=list(found.reasons), waiting=waiting), status=status)

    async def _metrics(self, _: Call) -> Raw:
        return Raw(text(self._application.metrics.read), CONTENT_TYPE)
