"""A worker of the world: the whole shipped application, started and ended as its process would be.

Owns: one worker's life, the settings that let it meet its bounds. Must not know: faults, what is right.
"""

from __future__ import annotations

import asyncio
from typing import Any

import agents
from catalog import Catalog
from pipeline.application import Application
from pipeline.settings import Settings
from pipeline.transport import app as app_module
from pipeline.transport import consumer as consumer_module
from tests.simulation.machine import Loop, Process

__all__ = ["Worker"]

AHEAD = 30
BATCH_RECORDS = 7
app_module._BATCH_RECORDS = BATCH_RECORDS
consumer_module.AHEAD = AHEAD
consumer_module._STRETCH = 1
"""So small that a few hundred events meet every bound."""
_STOP_S = 20.0


class Worker:
    """One process `faust -A pipeline worker`."""

    def __init__(self, name: str, loop: Loop, settings: Settings, catalog: Catalog) -> None:
        self.process = Process(name, loop)
        self.application: Application | None = None
        self.stopping = False
        self.gone: asyncio.Future[None] = loop.create_future()
        """Done when the process has ended, however it ended."""
        self.process.on_death.append(lambda: self.gone.set_result(None))
        self._settings = settings
        self._catalog = catalog
        self._start = self.process.start(self._run())

    @property
    def consumer(self) -> Any:
        """Its consumer, once it has one."""
        app = self.application.app if self.application is not None else None
        return app.batches if app is not None and app._started.is_set() else None

    @property
    def has_crashed(self) -> bool:
        """Whether Faust gave up, after which the process exits."""
        if self._start.done() and not self._start.cancelled() and self._start.exception() is not None:
            return True
        return self.application is not None and self.application.app.crashed

    def stop(self) -> asyncio.Future[None]:
        """Stop it as SIGTERM does; it is gone when that is done, or after the watchdog's time."""
        self.stopping = True
        self.process.start(self._stop())
        return self.gone

    async def _run(self) -> None:
        application = self.application = Application(self._settings, self._catalog)
        app = application.app
        app.conf.web_enabled = False
        app.conf.broker_session_timeout = 6.0
        app.conf.broker_heartbeat_interval = 1.0
        app.conf.broker_rebalance_timeout = 12.0
        for register in agents.AGENTS:
            register(application)
        app.finalize()
        await app.start()

    async def _stop(self) -> None:
        if self.application is not None:
            try:
                async with asyncio.timeout(_STOP_S):
                    await self.application.app.stop()
            except TimeoutError:
                pass
        self.process.kill()
