"""`faust -A pipeline dlq ...`: look at dead letters, send them back, discard them (O2).

Owns: the commands, their options, their exit statuses. Must not know: how an answer is found or printed.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click
from faust.cli import argument, option

from pipeline.application import Application
from pipeline.cli.command import WORKER_OPTIONS, Report, Subcommand, add_group
from pipeline.cli.dlq_direct import reading
from pipeline.cli.dlq_reports import preview_text, record_text, topic_text, topics_text
from pipeline.cli.following import run_job
from pipeline.cli.worker_api import worker_at
from pipeline.errors import StagepostError
from pipeline.redrive.selection import Selection, WrongSelection

__all__ = ["register"]

_CONDITIONS = tuple(
    option(f"--{name.replace('_', '-')}", name, default="", help=text)
    for name, text in {
        "topic": "the dead-letter topic",
        "partition": "its partition",
        "offset": "one offset",
        "first_offset": "from this offset on",
        "last_offset": "up to this offset",
        "fingerprint": "failures of one kind",
        "tenant": "one tenant's",
        "class": "one error class",
        "definition": "one definition",
        "since": "failed then or later, RFC 3339",
        "until": "failed before then",
        "state": "open (the default), redriven, discarded or any",
    }.items()
)
_DIRECT = option(
    "--direct", is_flag=True, help="Read Kafka, not a worker; takes as long as the index is long."
)
_RATE = option("--rate", type=click.FloatRange(min=0), default=0.0, help="Events a second at most.")
_REASON = option("--reason", default="", help="Why; stands in the audit record.")
_DRY_RUN = option("--dry-run", is_flag=True, help="Only show what it would meet.")
_ALL = option("--all", "everything", is_flag=True, help="Every open dead letter, without any condition.")


class NothingSelected(StagepostError):
    """A job without a condition was not meant."""

    def __init__(self) -> None:
        super().__init__("select something: --topic, --fingerprint, --tenant, ..., or --all for everything")


def register(application: Application) -> None:
    """Put the commands on Faust's command line."""
    add = add_group(application, "dlq", "Look at dead letters, send them back, discard them.")
    looking = (*WORKER_OPTIONS, _DIRECT)
    add(
        list,
        *_CONDITIONS,
        option("--cursor", default="", help="Go on where a list ended."),
        option(
            "--limit", type=click.IntRange(1, 1_000), default=50, show_default=True, help="Letters to list."
        ),
        *looking,
    )
    add(show, argument("record"), *looking)
    changing = (*_CONDITIONS, _REASON, _DRY_RUN, _ALL, *WORKER_OPTIONS)
    add(redrive, _RATE, *changing)
    add(discard, *changing)
    add(scan, option("--topic", required=True, help="The topic to read."), *WORKER_OPTIONS)


async def list(  # noqa: A001 -- a command is named like its handler
    self: Subcommand, *, url: str, token: str, direct: bool, cursor: str, limit: int, **conditions: str
) -> Report:
    """List dead letters.

    Without conditions: topics, with their counts. With --topic: failures by kind, and the letters, newest first.
    With other conditions: failures by kind, of all topics.
    """
    selection = Selection.parse(conditions)
    given = {name: value for name, value in conditions.items() if value}
    settings = self.application.settings
    if direct:
        async with reading(settings, self.progress) as found:
            if not given:
                return _report(await found.topics(), topics_text)
            if selection.topic is None:
                return _report(await found.preview(selection), preview_text)
            return _report(await found.topic(selection, cursor or None, limit), topic_text)
    async with worker_at(settings, url, token) as worker:
        if not given:
            return _report(await worker.get("/dlq/"), topics_text)
        if selection.topic is None:
            return _report(await worker.get("/jobs/preview", given), preview_text)
        topic = given.pop("topic")
        query = {**given, "limit": str(limit), **({"cursor": cursor} if cursor else {})}
        return _report(await worker.get(f"/dlq/{quote(topic, safe='')}/", query), topic_text)


async def show(self: Subcommand, *, record: str, url: str, token: str, direct: bool) -> Report:
    """Show one dead letter in full: RECORD is TOPIC/PARTITION/OFFSET, as `dlq list` has it."""
    topic, _, place = record.partition("/")
    partition, _, offset = place.partition("/")
    if not (topic and partition.isdecimal() and offset.isdecimal()):
        raise WrongSelection("RECORD", f"{record!r} is not TOPIC/PARTITION/OFFSET")
    settings = self.application.settings
    if direct:
        async with reading(settings, self.progress) as found:
            return _report(await found.record(topic, int(partition), int(offset)), record_text)
    async with worker_at(settings, url, token) as worker:
        found = await worker.get(f"/dlq/{quote(topic, safe='')}/{partition}/{offset}/")
        return _report(found, record_text)


async def redrive(self: Subcommand, *, rate: float, **given: Any) -> Report:
    """Send dead letters back to where they failed.

    Shows first what it meets, then how far it is. Exit status 0 once every letter selected is on its way; where
    some had to be left, or the job ends in another way, 1. Interrupted, the job goes on: see `jobs list`.
    """
    return await _change(self, "redrive", rate, **given)


async def discard(self: Subcommand, **given: Any) -> Report:
    """Say that dead letters need nothing more.

    They stay on their topic; each leaves an audit record. Exit status 0 once all are discarded.
    """
    return await _change(self, "discard", 0.0, **given)


async def scan(self: Subcommand, *, topic: str, url: str, token: str) -> Report:
    """Get to know the dead letters of a topic that another program wrote, or an older version.

    Reads lib-streaming's, Kafka Connect's and spring-kafka's; afterwards they are listed and redriven as ours are.
    """
    async with worker_at(self.application.settings, url, token) as worker:
        return await run_job(self, worker, "/jobs/", {"kind": "scan", "topic": topic})


async def _change(
    self: Subcommand,
    kind: str,
    rate: float,
    *,
    reason: str,
    dry_run: bool,
    everything: bool,
    url: str,
    token: str,
    **conditions: str,
) -> Report:
    given = {name: value for name, value in conditions.items() if value}
    Selection.parse(given)
    if not given and not everything:
        raise NothingSelected
    async with worker_at(self.application.settings, url, token) as worker:
        preview = await worker.get("/jobs/preview", given)
        if dry_run:
            return _report(preview, preview_text)
        self.progress(preview_text(preview))
        return await run_job(self, worker, "/jobs/", {"kind": kind, "rate": rate, "reason": reason, **given})


def _report(document: Any, text: Any) -> Report:
    return Report(document, text(document), done=True)
