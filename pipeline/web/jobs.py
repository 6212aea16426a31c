"""The pages `/jobs/`: a look at what a redrive or discard would meet, starting one, watching and steering it.

Owns: these pages and changes. Must not know: how a job works; its audit records are the dead letters' own.
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlencode

from pydantic import BaseModel, Field

from pipeline.redrive.deadletters import DeadLetters
from pipeline.redrive.job import Job, JobKind, NoSuchJob, WrongJobState
from pipeline.redrive.model import Bar, Group
from pipeline.redrive.selection import Selection
from pipeline.web.dead_letters import Conditions, answered, selection_of
from pipeline.web.route import Answer, Call, Nothing, Problem, Route

__all__ = ["ROUTES"]


class Selected(Conditions):
    """Which dead letters, of all topics where none is named."""

    topic: str = ""


class Order(Selected):
    """A job: what to do with which dead letters, and at most how many events a second (0: as fast as it goes)."""

    kind: Literal["redrive", "discard", "scan"]
    rate: float = Field(0.0, ge=0, le=1_000_000)
    reason: str = Field("", max_length=500)


class PreviewPage(BaseModel):
    """What a job would meet now. `too_often`: redriven as often as MAX_REDRIVES allows, and so left alone;
    `groups`: the largest of so many `kinds`."""

    conditions: dict[str, str]
    count: int
    too_often: int
    kinds: int
    groups: list[Group]
    oldest_at: float | None
    newest_at: float | None
    histogram: list[Bar]

    @property
    def highest(self) -> int:
        """The count of the highest bar."""
        return max((bar.count for bar in self.histogram), default=0)

    @property
    def query(self) -> str:
        """The conditions as a query."""
        return urlencode(self.conditions)


class Jobs(BaseModel):
    """All jobs, newest first."""

    jobs: list[Job]


class JobPage(BaseModel):
    """One job."""

    job: Job

    @property
    def conditions(self) -> dict[str, str]:
        """What it selects."""
        return self.job.conditions


async def jobs(call: Call) -> Answer:
    """All jobs."""
    return Answer(Jobs(jobs=list(_letters(call).jobs())), "jobs.html")


async def job(call: Call) -> Answer:
    """One job and how far it is."""
    try:
        found = _letters(call).job(call.path["job"])
    except NoSuchJob as error:
        raise Problem(404, str(error)) from None
    return Answer(JobPage(job=found), "job.html")


async def preview(call: Call) -> Answer:
    """What a job with this selection would meet; changes nothing."""
    selection = _selection(call.asked(Selected))
    found = await answered(_letters(call).preview(selection))
    page = PreviewPage(
        conditions=selection.as_text(),
        count=found.count,
        too_often=found.too_often,
        kinds=found.kinds,
        groups=list(found.groups),
        oldest_at=found.oldest_at,
        newest_at=found.newest_at,
        histogram=list(found.histogram),
    )
    return Answer(page, "preview.html")


async def start(call: Call) -> Answer:
    """Start a job."""
    order = call.given(Order)
    kind, selection = JobKind(order.kind), _selection(order)
    started = _letters(call).start(kind, selection, by=call.by, rate=order.rate, reason=order.reason)
    return _steered(await answered(started))


async def pause(call: Call) -> Answer:
    """Let a job wait."""
    return await _steer(call, "pause")


async def resume(call: Call) -> Answer:
    """Let a paused job go on."""
    return await _steer(call, "resume")


async def cancel(call: Call) -> Answer:
    """End a job; what it has done stays done."""
    return await _steer(call, "cancel")


async def _steer(call: Call, how: Literal["pause", "resume", "cancel"]) -> Answer:
    letters = _letters(call)
    act = {"pause": letters.pause, "resume": letters.resume, "cancel": letters.cancel}[how]
    try:
        return _steered(await act(call.path["job"], by=call.by))
    except NoSuchJob as error:
        raise Problem(404, str(error)) from None
    except WrongJobState as error:
        raise Problem(409, str(error)) from None


def _letters(call: Call) -> DeadLetters:
    return call.application.dead_letters


def _selection(selected: Selected) -> Selection:
    return selection_of(selected, selected.topic)


def _steered(found: Job) -> Answer:
    return Answer(JobPage(job=found), see=f"/jobs/{found.id}/")


ROUTES = (
    Route("GET", "/jobs/", jobs, "All jobs, newest first.", Jobs),
    Route("GET", "/jobs/preview", preview, "What a job would meet; changes nothing.", PreviewPage, Selected),
    Route("POST", "/jobs/", start, "Start a job.", JobPage, body=Order),
    Route("GET", "/jobs/{job}/", job, "One job and how far it is.", JobPage),
    Route("POST", "/jobs/{job}/pause", pause, "Let a job wait.", JobPage, body=Nothing),
    Route("POST", "/jobs/{job}/resume", resume, "Let a paused job go on.", JobPage, body=Nothing),
    Route("POST", "/jobs/{job}/cancel", cancel, "End a job.", JobPage, body=Nothing),
)
