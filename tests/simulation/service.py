"""A service of the world: the shipped stager, and callers of it, one for each key.

Owns: one service's life, what its callers do with what they are told. Must not know: faults, what is right.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

from catalog import Catalog
from pipeline.client import relay
from pipeline.client.kafka_stager import KafkaStager
from pipeline.errors import StagerClosed, StagingRefused, StagingUnavailable
from pipeline.settings import Settings
from tests.simulation.machine import Loop, Process
from tests.simulation.staging_oracle import Call, StagingOracle

__all__ = ["Service"]

_KEYS = ("ann", "bob", "cyd")
relay._WINDOW = 3
"""Rows in lanes at a time: so few that new events come while others still wait."""


class Service:
    """One process of a service that stages events."""

    def __init__(
        self,
        name: str,
        loop: Loop,
        settings: Settings,
        catalog: Catalog,
        chance: random.Random,
        oracle: StagingOracle,
    ) -> None:
        self.process = Process(name, loop)
        self.stopping = False
        self.silent = False
        """Nobody calls any more."""
        self.gone: asyncio.Future[None] = loop.create_future()
        self.process.on_death.append(lambda: self.gone.set_result(None))
        self.stager = KafkaStager(settings, catalog=catalog)
        self._settings = settings
        self._chance = chance
        self._oracle = oracle
        self._start = self.process.start(self._run())

    @property
    def has_crashed(self) -> bool:
        """Whether it could not start."""
        return self._start.done() and not self._start.cancelled() and self._start.exception() is not None

    def stop(self) -> asyncio.Future[None]:
        """Stop it in good order."""
        self.stopping = True
        self.process.start(self._stop())
        return self.gone

    async def _run(self) -> None:
        await self.stager.start()
        self._callers = [asyncio.create_task(self._call_again_and_again(key)) for key in _KEYS]

    async def _stop(self) -> None:
        await asyncio.wait([self._start])
        began = self.process.loop.time()
        await self.stager.close()
        self._oracle.closed(
            self.process.name, self.process.loop.time() - began, self._settings.close_timeout_s
        )
        self.process.kill()

    async def _call_again_and_again(self, key: str) -> None:
        number = 0
        while not (self.stopping or self.silent):
            await asyncio.sleep(self._chance.choice([0.0, 0.1, 0.5]))
            number += 1
            policy = self._chance.choice([None] * 8 + [{"outbox": "always"}, {"outbox": "never"}])
            event_id = f"{self.process.name}/{key}/{number}"
            call = Call(event_id, (self.process.name, key), number, in_order=policy != {"outbox": "never"})
            self._oracle.called(call)
            began = self.process.loop.time()
            patience = self._chance.choice([None] * 20 + [0.001, 0.5])
            await self._call(call, key, policy, patience)
            self._oracle.took(call, self.process.loop.time() - began, self._settings.stage_timeout_s)

    async def _call(self, call: Call, key: str, policy: Any, patience: float | None) -> None:
        try:
            async with asyncio.timeout(patience):
                staged = await self.stager.stage(
                    "order.created", {"n": call.number}, tenant=key, id=call.event_id, policy=policy
                )
        except TimeoutError:
            self._oracle.cancelled(call)
        except StagingUnavailable as error:
            self._oracle.raised(call, unknown=error.unknown)
        except StagerClosed:
            call.in_order = False
            self._oracle.raised(call, unknown=False)
        except StagingRefused:
            self._oracle.raised(call, unknown=False)
        else:
            self._oracle.durable(call, staged)
