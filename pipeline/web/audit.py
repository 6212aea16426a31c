"""The page `/audit/`: who changed what, and what was skipped.

Owns: reading the end of the audit topic, back to what was asked for. Must not know: who writes to it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from pydantic import BaseModel, Field, JsonValue

from pipeline.audit import entry_of
from pipeline.kafka.connection import Connection, staging_cluster
from pipeline.kafka.reader import Place, Reader
from pipeline.redrive.job import JobKind
from pipeline.web.route import Answer, Call, Form, Route

__all__ = ["ROUTES", "Line", "Tail", "tail"]

_FETCH_S = 2.0
_FETCH_RECORDS = 1_000
_GROWTH = 4
_MOST_RECORDS = 100_000
"""How far a question goes back: a discard alone leaves a record for each dead letter."""
_MOST_S = 8.0
Entry = Mapping[str, JsonValue]


class Asked(Form):
    """Which entries: the latest, of an action, of a person."""

    limit: int = Field(100, ge=1, le=1_000)
    action: str = ""
    by: str = ""


class Line(BaseModel):
    """One audit record."""

    at: str
    action: str
    by: str
    subject: str
    facts: dict[str, JsonValue]
    partition: int
    offset: int

    @property
    def link(self) -> str:
        """The page of what was changed; empty where it has none."""
        about, _, what = self.action.partition(".")
        if what and about in {"job", *JobKind}:
            return f"/jobs/{quote(self.subject, safe='')}/"
        if about == "breaker":
            return f"/breakers/#{quote(self.subject)}"
        return f"/dlq/{quote(self.subject)}/" if self.action == "discarded" else ""


class Audit(BaseModel):
    """The latest entries, newest first, as they were asked for."""

    lines: list[Line]
    asked: Asked
    looked_at: int
    """How many records of the topic were looked at."""
    is_whole: bool
    """Whether no older record could have been among the lines; False where looking was ended before."""


class Tail(NamedTuple):
    """What was found, newest first; of how many records, and whether it is certain that nothing is missing."""

    lines: list[Line]
    looked_at: int
    is_whole: bool


async def audit(call: Call) -> Answer:
    """The latest audit records."""
    asked = call.asked(Asked)

    def wanted(entry: Entry) -> bool:
        return (not asked.action or entry.get("action") == asked.action) and (
            not asked.by or entry.get("by") == asked.by
        )

    connection = staging_cluster(call.application.settings)
    found = await tail(connection, call.application.topics.audit, asked.limit, wanted)
    page = Audit(lines=found.lines, asked=asked, looked_at=found.looked_at, is_whole=found.is_whole)
    return Answer(page, "audit.html")


async def tail(
    connection: Connection,
    topic: str,
    most: int,
    wanted: Callable[[Entry], bool] = lambda _: True,
    most_records: int = _MOST_RECORDS,
) -> Tail:
    """The last `most` records of a topic that are wanted. Each partition is read backwards, in growing steps, until it
    has given that many; not beyond `most_records` of them all, once they were looked at, or `_MOST_S`."""
    lines: defaultdict[Place, list[Line]] = defaultdict(list)
    looked_at, step = 0, most
    until = asyncio.get_running_loop().time() + _MOST_S
    async with Reader(connection) as reader:
        bounds = {Place(topic, number): at for number, at in (await reader.bounds(topic)).items()}
        ends = {place: at.end for place, at in bounds.items()}
        while True:
            ends = {
                place: end
                for place, end in ends.items()
                if end > bounds[place].first and len(lines[place]) < most
            }
            if not ends or looked_at >= most_records or asyncio.get_running_loop().time() > until:
                break
            starts = {place: max(bounds[place].first, end - step) for place, end in ends.items()}
            async for place, record in _between(reader, starts, ends):
                looked_at += 1
                entry = entry_of(record.value)
                if wanted(entry):
                    lines[place].append(_line(entry, place.partition, record.offset))
            ends, step = starts, step * _GROWTH
    newest = sorted(
        (line for found in lines.values() for line in found),
        key=lambda line: (line.at, line.partition, line.offset),
        reverse=True,
    )
    return Tail(newest[:most], looked_at, not ends)


async def _between(
    reader: Reader, starts: Mapping[Place, int], ends: Mapping[Place, int]
) -> AsyncIterator[tuple[Place, Any]]:
    """All records from the one offset of each partition up to, and without, the other."""
    left = set(starts)
    reader.read_from(starts)
    while left:
        for place, records in (await reader.fetch(_FETCH_RECORDS, _FETCH_S, *left)).items():
            for record in records:
                if record.offset < ends[place]:
                    yield place, record
        left = {place for place in left if await reader.position(place) < ends[place]}


def _line(entry: Entry, partition: int, offset: int) -> Line:
    facts = dict(entry)
    at, action, by = (str(facts.pop(name, "")) for name in ("at", "action", "by"))
    subject = str(facts.pop("subject", "") or facts.get("id", ""))
    return Line(at=at, action=action, by=by, subject=subject, facts=facts, partition=partition, offset=offset)


ROUTES = (Route("GET", "/audit/", audit, "Who changed what, newest first.", Audit, Asked),)
