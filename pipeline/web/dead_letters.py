"""The pages `/dlq/`: which topics have dead letters, the failures of one grouped by their kind, one record in full.

Owns: showing them. Must not know: how letters are found, what a job does with them.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar
from urllib.parse import urlencode

from pydantic import BaseModel, Field

from pipeline.redrive.deadletters import DeadLetters
from pipeline.redrive.job import Job
from pipeline.redrive.model import FullRecord, Group, Letter, LetterGone, NoSuchLetter, TopicSummary
from pipeline.redrive.selection import Selection, WrongSelection
from pipeline.web.explained import explained
from pipeline.web.route import Answer, Call, Form, Problem, Raw, Route
from pipeline.web.showing import Shown, show_bytes, show_text

__all__ = ["ROUTES", "Conditions", "answered", "selection_of"]

T = TypeVar("T")
_SHOWN_HEADER_BYTES = 4_096
_SHOWN_JOBS = 10
_PAGE = 50
_MOST_PARTITION, _MOST_OFFSET = 2**31 - 1, 2**63 - 1


class Conditions(Form):
    """Which dead letters. All that are given hold; times are RFC 3339 or seconds since 1970."""

    partition: str = ""
    offset: str = ""
    first_offset: str = ""
    last_offset: str = ""
    fingerprint: str = ""
    tenant: str = ""
    error_class: str = Field("", alias="class")
    definition: str = ""
    since: str = ""
    until: str = ""
    state: str = ""


class LettersAsked(Conditions):
    """The same, and which page of the list: `cursor` as the page before gave it."""

    cursor: str = ""
    limit: int = Field(_PAGE, ge=1, le=1_000)


class Topics(BaseModel):
    """All topics with dead letters, those with most open ones first. `behind`: dead letters not indexed yet."""

    open: int
    behind: int
    topics: list[TopicSummary]
    jobs: list[Job]


class TopicPage(BaseModel):
    """One topic: its failures by kind, and a page of its letters, newest first; as far as the conditions hold.

    `count` letters of so many `kinds`; `groups` are the kinds with most, at most a thousand.
    """

    topic: str
    conditions: dict[str, str]
    """As they were understood; `state` is `any` where every state counts."""
    count: int
    kinds: int
    groups: list[Group]
    letters: list[Letter]
    cursor: str | None

    @property
    def query(self) -> str:
        """The conditions as a query, to act on what is selected."""
        return urlencode(self.conditions)

    def narrowed(self, **more: str) -> str:
        """The query with more conditions."""
        kept = {name: value for name, value in self.conditions.items() if name != "topic"}
        return urlencode({**kept, **more})


class Header(BaseModel):
    """One header, made harmless. `meaning`: what a header of ours or of a known program says."""

    name: str
    value: str
    meaning: str


class RecordPage(BaseModel):
    """One dead letter in full. `payload` is text, JSON or a hex dump; cut, and hidden where SHOW_PAYLOADS says so."""

    letter: Letter
    message: str
    key: str | None
    headers: list[Header]
    payload: Shown
    payload_omitted: bool
    """The payload did not fit into the dead-letter topic; a redrive reads it from staging again (Q2)."""


def selection_of(conditions: Conditions, topic: str = "") -> Selection:
    """What the conditions select. Raises `Problem` 400."""
    given = conditions.model_dump(by_alias=True, include=set(Conditions.model_fields))
    try:
        return Selection.parse({**given, "topic": topic})
    except WrongSelection as error:
        raise Problem(400, str(error)) from None


async def answered(asked: Awaitable[T]) -> T:
    """What the dead letters answer. Raises `Problem` where the question cannot be answered."""
    try:
        return await asked
    except WrongSelection as error:
        raise Problem(400, str(error)) from None
    except (NoSuchLetter, LetterGone) as error:
        raise Problem(404, str(error)) from None


async def topics(call: Call) -> Answer:
    """All topics with dead letters."""
    letters: DeadLetters = call.application.dead_letters
    found = await letters.overview()
    jobs = list(letters.jobs())[:_SHOWN_JOBS]
    page = Topics(open=found.open, behind=found.behind, topics=list(found.topics), jobs=jobs)
    return Answer(page, "topics.html")


async def topic(call: Call) -> Answer:
    """One topic's failures by kind, and its letters."""
    name, asked = call.path["topic"], call.asked(LettersAsked)
    letters: DeadLetters = call.application.dead_letters
    selection = selection_of(asked, name)
    page = await answered(letters.letters(selection, asked.cursor or None, asked.limit))
    groups = await answered(letters.groups(selection))
    found = TopicPage(
        topic=name,
        conditions=selection.as_text(),
        count=groups.count,
        kinds=groups.kinds,
        groups=list(groups.largest),
        letters=list(page.letters),
        cursor=page.cursor,
    )
    return Answer(found, "topic.html")


async def record(call: Call) -> Answer:
    """One dead letter in full."""
    found = await _record(call)
    headers = [
        Header(
            name=show_text(name.encode(errors="surrogateescape"), 256),
            value="" if value is None else show_text(value, _SHOWN_HEADER_BYTES),
            meaning=explained(name, value),
        )
        for name, value in found.headers
    ]
    page = RecordPage(
        letter=found.letter,
        message=found.message,
        key=None if found.key is None else show_text(found.key, _SHOWN_HEADER_BYTES),
        headers=headers,
        payload=show_bytes(found.value, may_show=call.application.settings.payloads_are_shown),
        payload_omitted=found.payload_omitted,
    )
    return Answer(page, "record.html")


async def payload(call: Call) -> Raw:
    """The payload byte for byte, as a file that no browser opens."""
    if not call.application.settings.payloads_are_shown:
        raise Problem(403, "payloads are hidden here: STREAMING_SHOW_PAYLOADS")
    found = await _record(call)
    headers = {"Content-Disposition": 'attachment; filename="payload.bin"'}
    return Raw(found.value or b"", "application/octet-stream", headers=headers)


async def _record(call: Call) -> FullRecord:
    topic, partition, offset = call.path["topic"], int(call.path["partition"]), int(call.path["offset"])
    if partition > _MOST_PARTITION or offset > _MOST_OFFSET:
        raise Problem(404, str(NoSuchLetter(topic, partition, offset)))
    letters: DeadLetters = call.application.dead_letters
    return await answered(letters.record(topic, partition, offset))


_RECORD = r"/dlq/{topic}/{partition:\d{1,10}}/{offset:\d{1,19}}/"
ROUTES = (
    Route("GET", "/dlq/", topics, "All topics with dead letters.", Topics),
    Route(
        "GET",
        "/dlq/{topic}/",
        topic,
        "One topic's failures by kind, and its letters.",
        TopicPage,
        LettersAsked,
    ),
    Route("GET", _RECORD, record, "One dead letter in full.", RecordPage),
    Route("GET", f"{_RECORD}payload", payload, "Its payload, byte for byte."),
)
