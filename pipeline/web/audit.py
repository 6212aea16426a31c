"""The page `/audit/`: who changed what, and what was skipped.

Owns: reading the end of the audit topic. Must not know: who writes to it.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field, JsonValue

from pipeline.audit import entry_of
from pipeline.kafka.connection import Connection, staging_cluster
from pipeline.kafka.reader import Place, Reader
from pipeline.web.route import Answer, Call, Form, Route

__all__ = ["ROUTES", "Line", "tail"]

_FETCH_S = 2.0


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


class Audit(BaseModel):
    """The latest entries, newest first, as they were asked for."""

    lines: list[Line]
    asked: Asked


async def audit(call: Call) -> Answer:
    """The latest audit records."""
    asked = call.asked(Asked)
    connection = staging_cluster(call.application.settings)
    found = await tail(connection, call.application.topics.audit, asked.limit)
    lines = [
        line
        for line in found
        if (not asked.action or line.action == asked.action) and (not asked.by or line.by == asked.by)
    ]
    return Answer(Audit(lines=lines, asked=asked), "audit.html")


async def tail(connection: Connection, topic: str, most: int) -> list[Line]:
    """The last records of each partition of the audit topic, newest first, `most` of them at most."""
    lines: list[Line] = []
    async with Reader(connection) as reader:
        bounds = await reader.bounds(topic)
        ends = {Place(topic, p): bound.end for p, bound in bounds.items() if bound.end > bound.first}
        reader.read_from(
            {place: max(bounds[place.partition].first, end - most) for place, end in ends.items()}
        )
        while ends:
            for place, records in (await reader.fetch(most, _FETCH_S)).items():
                lines += [_line(record, place.partition) for record in records]
            for place in list(ends):
                if await reader.position(place) >= ends[place]:
                    del ends[place]
    lines.sort(key=lambda line: (line.at, line.partition, line.offset), reverse=True)
    return lines[:most]


def _line(record: Any, partition: int) -> Line:
    facts = dict(entry_of(record.value))
    at, action, by = (str(facts.pop(name, "")) for name in ("at", "action", "by"))
    subject = str(facts.pop("subject", "") or facts.get("id", ""))
    return Line(
        at=at, action=action, by=by, subject=subject, facts=facts, partition=partition, offset=record.offset
    )


ROUTES = (Route("GET", "/audit/", audit, "Who changed what, newest first.", Audit, Asked),)
