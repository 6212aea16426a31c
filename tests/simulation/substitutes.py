"""What is put in place of the outside world, and nothing else: sockets, threads, random numbers.

Owns: the list of replaced names. Must not know: what a world does. Everything above these names is shipped code,
ours and that of Faust, mode and aiokafka.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import aiokafka.client
import mode.threads
from faust.types import AppT
from mode.signals import BaseSignal

from pipeline import ids
from pipeline.kafka import client
from tests.simulation.machine import Loop
from tests.simulation.network import Network

__all__ = ["put_in_place"]


class _Thread:
    """A thread of mode's, as tasks of the one loop: how they take turns is up to the loop."""

    def __init__(self, service: Any, **_: Any) -> None:
        self._service = service

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._service._serve())

    def stop(self) -> None:
        """It has ended: `ServiceThread.stop` has waited for that."""


async def _nothing(*_: Any) -> None:
    """A thread that ends cancels every task of its loop; here the loop is everybody's."""


def put_in_place(loop: Loop, network: Network, seed: int) -> None:
    """For one world; the next one puts its own in place."""
    aiokafka.client.create_conn = client.create_conn = network.connect
    asyncio.new_event_loop = lambda: loop
    mode.threads.ServiceThread.Worker = _Thread  # type: ignore[assignment]
    mode.threads.ServiceThread.on_crash = lambda *_, **__: None  # type: ignore[method-assign]
    mode.threads.ServiceThread._gather_remaining_tasks = _nothing  # type: ignore[method-assign, assignment]
    for signal in vars(AppT).values():  # of the class, not of an app: the last world's are still in them
        if isinstance(signal, BaseSignal):
            signal._receivers.clear()
            signal._filter_receivers.clear()
    random.seed(seed)
    ids._generator = ids._Generator()
