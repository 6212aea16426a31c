"""The page `/breakers/<target>/`: what is parked for a target, as a dry run, and the two orders to do away with it.

Owns: showing it, ordering a release and a move-on. Must not know: how either is done; their audit records are the
jobs' own.
"""

from __future__ import annotations

from pydantic import BaseModel, Field

from pipeline.park import Choice
from pipeline.parking.look import Look
from pipeline.redrive.job import JobKind
from pipeline.redrive.selection import Selection, WrongSelection
from pipeline.web.jobs import JobPage
from pipeline.web.route import Answer, Call, Form, Problem, Route

__all__ = ["ROUTES"]


class Place(Form):
    """Of which staging partition; of all where none is named."""

    partition: str = Field("", pattern=r"^\d{0,9}$")


class Chosen(Place):
    """Which of what is parked; all that is given holds."""

    tenant: str = Field("", max_length=256)
    definition: str = Field("", max_length=256)


class Release(Place):
    """What to deliver now."""

    reason: str = Field("", max_length=500)


class MoveOn(Chosen):
    """What is to wait no longer."""

    reason: str = Field("", max_length=500)


class ParkedPage(BaseModel):
    """What a job would meet now. `target`: a topic, or the definition or staging version that no worker knew."""

    target: str
    conditions: dict[str, str]
    parked: Look
    may_release: bool
    """Whether nothing but a partition is chosen: what stands behind something of its name cannot go first."""


async def parked(call: Call) -> Answer:
    """What is parked for a target, by whom and since when; changes nothing."""
    asked, target = call.asked(Chosen), call.path["target"]
    page = ParkedPage(
        target=target,
        conditions={name: value for name, value in asked.model_dump().items() if value},
        parked=await _look(call, asked),
        may_release=not (asked.tenant or asked.definition),
    )
    return Answer(page, "parked.html")


async def release(call: Call) -> Answer:
    """Deliver what is parked for a target now, in order, though its breaker would wait or somebody paused it."""
    given = call.given(Release)
    return await _order(call, JobKind.RELEASE, Chosen(partition=given.partition), given.reason)


async def move_on(call: Call) -> Answer:
    """Send what is parked for a target, or some of it, to its dead-letter topic: the rest need not wait for it."""
    given = call.given(MoveOn)
    return await _order(call, JobKind.MOVE_ON, given, given.reason)


async def _order(call: Call, kind: JobKind, chosen: Chosen, reason: str) -> Answer:
    """Start the job; it is in the audit first, with what was seen to be there. Raises `Problem`."""
    target = call.path["target"]
    found = await _look(call, chosen)
    if not found.count and target not in call.application.breakers:
        raise Problem(404, f"{target!r} is no target of this catalog, and nothing is parked under that name")
    conditions = {**chosen.model_dump(include=set(Chosen.model_fields)), "topic": target, "state": "any"}
    try:
        selection = Selection.parse(conditions)
        letters = call.application.dead_letters
        job = await letters.start_parked(kind, selection, by=call.by, reason=reason, count=found.count)
    except WrongSelection as error:
        raise Problem(400, str(error)) from None
    return Answer(JobPage(job=job), see=f"/jobs/{job.id}/")


async def _look(call: Call, chosen: Chosen) -> Look:
    partition = int(chosen.partition) if chosen.partition else None
    choice = Choice(chosen.tenant or None, chosen.definition or None)
    return await call.application.errands.look(call.path["target"], choice, partition)


ROUTES = (
    Route(
        "GET",
        "/breakers/{target}/",
        parked,
        "What is parked for a target, as a dry run; changes nothing.",
        ParkedPage,
        Chosen,
    ),
    Route("POST", "/breakers/{target}/release", release, "Deliver it now.", JobPage, body=Release),
    Route("POST", "/breakers/{target}/move-on", move_on, "Make dead letters of it.", JobPage, body=MoveOn),
)
