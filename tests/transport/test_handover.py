"""From a fetch to an agent's stream: one item for each fetch, and no fetch ahead of the agent (T6, D2)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import NamedTuple, cast

from faust.types import TP, AppT
from mode.utils.queues import FlowControlEvent, ThrowableQueue

from pipeline.record import RawHeaders
from pipeline.transport.handover import Handover
from pipeline.transport.progress import Batch, Memory, Progress

_TOPIC = "shop.staging"
_LONG_S = 30.0


class _Record(NamedTuple):
    offset: int
    key: bytes | None = None
    value: bytes | None = None
    headers: RawHeaders = ()
    timestamp: int = 0


def _batches(*partitions: int) -> list[Batch]:
    memory = Memory(1_000_000)
    made = [Progress(_TOPIC, number, 100, memory).hand_out([_Record(0)]) for number in partitions]
    return [batch for batch in made if batch is not None]


def _handover() -> tuple[Handover, ThrowableQueue[Sequence[Batch]]]:
    queue: ThrowableQueue[Sequence[Batch]] = ThrowableQueue(maxsize=1, flow_control=FlowControlEvent())
    channels = {TP(_TOPIC, number): (SimpleNamespace(queue=queue),) for number in range(3)}
    app = cast("AppT", SimpleNamespace(topics=SimpleNamespace(_tp_index=channels)))
    return Handover(app), queue


async def test_what_one_fetch_brought_is_one_item() -> None:
    """T6: batches of several partitions go to the agent together, in the order of the fetch."""
    handover, queue = _handover()
    batches = _batches(0, 2, 1)
    handover.give(_TOPIC, batches)
    assert queue.get_nowait() == batches
    assert queue.empty()


async def test_what_was_dropped_meanwhile_is_not_given() -> None:
    """T6: a seek for one partition of a fetch lets a rebalance in, which drops what was handed out of the others;
    nobody is there for a partition that is gone, and the worker must not end of it."""
    handover, queue = _handover()
    gone, *left = _batches(3, 1)
    gone.owner.revoke()
    handover.give(_TOPIC, [gone, *left])
    assert queue.get_nowait() == left
    handover.give(_TOPIC, [gone])
    assert queue.empty()


async def test_the_next_fetch_waits_until_the_agent_took_the_last() -> None:
    """T6: what is fetched ahead of the agent would wait in its queue, in ever more and ever shorter lists."""
    handover, queue = _handover()
    handover.give(_TOPIC, _batches(0))
    handover.give(_TOPIC, _batches(1))
    waiting = asyncio.create_task(handover.taken(_LONG_S))
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.get_nowait()
    queue.get_nowait()
    handover.took()
    await waiting


async def test_what_vanished_from_the_queue_is_not_waited_for() -> None:
    """T6: Faust clears the queues of streams when it rebalances; nobody takes what lay there."""
    handover, queue = _handover()
    handover.give(_TOPIC, _batches(0))
    queue.clear()
    await asyncio.wait_for(handover.taken(_LONG_S), 1.0)


async def test_an_agent_that_takes_nothing_does_not_stop_the_consumer() -> None:
    """T6: the consumer looks after its membership between fetches, so it waits for no agent without a limit."""
    handover, _ = _handover()
    handover.give(_TOPIC, _batches(0))
    await asyncio.wait_for(handover.taken(0.01), 1.0)
