"""The page `/breakers/`: each target's breaker, what is parked behind it, and what an operator can decide about it.

Owns: showing them, the three changes with their audit records (O3). Must not know: when a breaker opens by
itself, how parking works, how an order reaches every worker.
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import quote

from pydantic import BaseModel, Field

from pipeline.audit import Entry
from pipeline.breaker import State
from pipeline.clock import SYSTEM_CLOCK
from pipeline.errors import UnknownTarget
from pipeline.park import ParkedState, is_skew
from pipeline.parking.breakers import TargetState
from pipeline.web.route import Answer, Call, Form, Problem, Route

__all__ = ["ROUTES"]


class Why(Form):
    """What may be said with a change."""

    reason: str = Field("", max_length=500)


class Breakers(BaseModel):
    """The targets of the catalog, those that are not well first, and what is parked under other names."""

    targets: list[TargetState]
    unknown: list[ParkedState]
    """Parked because no worker knew its definition or staging version."""


class Changed(BaseModel):
    """A target after a change."""

    target: TargetState


async def breakers(call: Call) -> Answer:
    """All breakers."""
    targets = call.application.targets()
    targets.sort(key=lambda t: (t.state is State.CLOSED, t.parked_records == 0, t.target))
    unknown = [parked for parked in call.application.parked() if is_skew(parked.target)]
    return Answer(Breakers(targets=targets, unknown=unknown), "breakers.html")


async def pause(call: Call) -> Answer:
    """Let nothing through to a target until somebody resumes it: everything for it is parked, in order."""
    return await _order(call, "pause")


async def resume(call: Call) -> Answer:
    """End a pause."""
    return await _order(call, "resume")


async def reset(call: Call) -> Answer:
    """Close a breaker now, without waiting for its next probe."""
    return await _order(call, "reset")


async def _order(call: Call, want: Literal["pause", "resume", "reset"]) -> Answer:
    """Order it for all workers; it is in the audit first. Raises `Problem` 404."""
    target = call.path["target"]
    try:
        state = call.application.breakers.state(target)
    except UnknownTarget as error:
        raise Problem(404, str(error)) from None
    facts = {"reason": call.given(Why).reason, "state": state.value}
    await call.application.audit(Entry(f"breaker.{want}", call.by, SYSTEM_CLOCK.time(), target, facts))
    await call.application.dead_letters.order_target(target, want, by=call.by)
    return _changed(call, target)


def _changed(call: Call, target: str) -> Answer:
    (state,) = [found for found in call.application.targets() if found.target == target]
    return Answer(Changed(target=state), see=f"/breakers/#{quote(target)}")


ROUTES = (
    Route("GET", "/breakers/", breakers, "Each target's breaker and what is parked behind it.", Breakers),
    Route("POST", "/breakers/{target}/pause", pause, "Park everything for a target.", Changed, body=Why),
    Route("POST", "/breakers/{target}/resume", resume, "End a pause.", Changed, body=Why),
    Route("POST", "/breakers/{target}/reset", reset, "Close a breaker now.", Changed, body=Why),
)
