"""How a stager is (S9), from asking broker and outbox now.

Owns: what counts as healthy, degraded and down. Must not know: how either is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from pipeline.breaker import Breaker
from pipeline.client.direct import DirectPath
from pipeline.client.other_way import OtherWay
from pipeline.kafka.producer import Producer
from pipeline.outbox.errors import OutboxDamaged
from pipeline.outbox.protocol import Waiting
from pipeline.types import Health

__all__ = ["broker_health", "of_both_ways", "of_outbox", "outbox_health"]

_BY_ILLNESS: Final = ("healthy", "degraded", "down")


async def broker_health(
    direct: DirectPath, producer: Producer, limit_s: float, trouble: Callable[[], BaseException | None]
) -> Health:
    """Asks a broker for the staging topic, for at most `limit_s`; `trouble`: why staging fails all the same."""
    try:
        async with asyncio.timeout(limit_s):
            await direct.learnt()
            await producer.probe(direct.topic, limit_s)
    except Exception as error:  # noqa: BLE001 -- whatever it is, it is what is wrong with the broker
        cause = producer.trouble or error
        reason = str(cause) or f"no broker answered within {limit_s:g} s"
        return Health("down", f"the staging topic {direct.topic} cannot be used: {reason}")
    recent = trouble()
    return Health("healthy") if recent is None else Health("degraded", f"staging is failing: {recent!r}")


async def outbox_health(outbox: OtherWay, limit_s: float) -> Health:
    """Asks the outbox, for at most `limit_s`."""
    try:
        async with asyncio.timeout(limit_s):
            return await outbox.health()
    except Exception as error:  # noqa: BLE001 -- whatever it is, it is what is wrong with the outbox
        return Health("down", str(error) or "the outbox does not answer")


def of_outbox(
    breaker: Breaker, waiting: Waiting, others_set_aside: int, others_damage: Sequence[OutboxDamaged]
) -> Health:
    """An outbox that answers: degraded while rows wait or its breaker is not closed. `others_...`: what was found in
    the slots of processes that are gone."""
    reasons = []
    if not breaker.is_closed:
        reasons.append(f"the circuit breaker is {breaker.state}: {breaker.reason}")
    if waiting.full:
        reasons.append("the disk of the outbox is full: it takes nothing more, free some space")
    if waiting.rows:
        reasons.append(f"{waiting.rows:,} events wait in the outbox")
    if set_aside := waiting.set_aside + others_set_aside:
        reasons.append(f"{set_aside:,} rows are set aside and need a look")
    reasons += [str(damage) for damage in (waiting.damage, *others_damage) if damage is not None]
    return Health("degraded" if reasons else "healthy", "; ".join(reasons))


def of_both_ways(broker: Health, outbox: Health) -> Health:
    """The whole stager: down only where no way is left, for one way is enough to make events durable."""
    reason = "; ".join(filter(None, (broker.reason, outbox.reason)))
    if "down" in (outbox.state, broker.state) and outbox.state != broker.state:
        return Health("degraded", reason)
    worst = max((broker, outbox), key=lambda health: _BY_ILLNESS.index(health.state))
    return Health(worst.state, reason)
