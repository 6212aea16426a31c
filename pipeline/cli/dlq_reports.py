"""How answers about dead letters are shown to people: tables, a record in full, how far a job is. Pure.

Owns: these texts. Must not know: where answers come from. What comes from a record is shown without control
characters, which a terminal would obey.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.cli.command import table
from pipeline.clock import rfc3339

__all__ = [
    "job_line",
    "job_text",
    "jobs_text",
    "parked_text",
    "plain",
    "preview_text",
    "record_text",
    "topic_text",
    "topics_text",
]

Document = Mapping[str, Any]
_BAR = 30
_MESSAGE_CHARS = 60
_VISIBLE = {"\n": "\n", "\t": "\t"}


def topics_text(found: Document) -> str:
    """All topics with dead letters."""
    rows = [
        (
            one["topic"],
            f"{one['open']:,}",
            f"{one['per_minute']:,.1f}",
            _when(one["oldest_at"]),
            _when(one["newest_at"]),
            ", ".join(f"{name} {count:,}" for name, count in sorted(one["by_class"].items())) or "-",
            f"{one['redriven']:,}",
            f"{one['discarded']:,}",
        )
        for one in found["topics"]
    ]
    headers = ("TOPIC", "OPEN", "A MINUTE", "OLDEST", "NEWEST", "CLASSES", "REDRIVEN", "DISCARDED")
    behind = f"; {found['behind']:,} records of the index are not read yet" if found["behind"] else ""
    return plain(f"{table(headers, rows)}\n\n{found['open']:,} open dead letters{behind}")


def topic_text(found: Document) -> str:
    """Failures by kind, then letters."""
    letters = [
        (
            f"{one['topic']}/{one['partition']}/{one['offset']}",
            _when(one["failed_at"]),
            one["state"],
            one["tenant"] or "-",
            one["id"] or "-",
            one["fingerprint"],
            one["redrive_count"],
        )
        for one in found["letters"]
    ]
    headers = ("RECORD", "FAILED", "STATE", "TENANT", "ID", "FINGERPRINT", "REDRIVEN")
    more = f"\n\nmore with --cursor {found['cursor']}" if found["cursor"] else ""
    return plain(f"{_groups(found)}\n\n{table(headers, letters)}{more}")


def preview_text(found: Document) -> str:
    """What a job would meet."""
    held = (
        f", {found['too_often']:,} of them redriven too often to be redriven again"
        if found["too_often"]
        else ""
    )
    highest = max((bar["count"] for bar in found["histogram"]), default=0)
    bars = [
        (_when(bar["from_at"]), f"{bar['count']:,}", "#" * math.ceil(_BAR * bar["count"] / highest))
        for bar in found["histogram"]
    ]
    times = f"{table(('FAILED FROM', 'COUNT', ''), bars)}\n\n" if bars else ""
    return plain(f"{times}{_groups(found)}\n\n{found['count']:,} dead letters{held}")


def parked_text(found: Document) -> str:
    """What is parked for a target."""
    parked = found["parked"]
    tables = [
        table((title, "PARKED"), [(one["name"] or "-", f"{one['count']:,}") for one in parked[name]])
        for title, name in (("TENANT", "tenants"), ("DEFINITION", "definitions"))
        if parked[name]
    ]
    part = "" if parked["is_whole"] else f"\ntenants and definitions of the first {parked['looked_at']:,}"
    reasons = "".join(f"\n{reason}" for reason in parked["reasons"])
    oldest = f", the oldest since {_when(parked['oldest_at'])}" if parked["count"] else ""
    tables.append(f"{parked['count']:,} parked for {found['target']}{oldest}{part}{reasons}")
    return plain("\n\n".join(tables))


def record_text(found: Document) -> str:
    """One record in full."""
    letter = found["letter"]
    kind, text, size, left_out = found["payload"]
    facts = [
        ("record", f"{letter['topic']}/{letter['partition']}/{letter['offset']}"),
        ("state", letter["state"]),
        ("failed", f"{_when(letter['failed_at'])}, first {_when(letter['first_failure_at'])}"),
        ("class", letter["error_class"]),
        ("message", found["message"]),
        ("came from", f"{letter['source_topic']}, at {letter['source_partition']}/{letter['source_offset']}"),
        ("key", found["key"]),
    ]
    headers = [(one["name"], one["value"], one["meaning"]) for one in found["headers"]]
    what = "left out when it was dead-lettered" if found["payload_omitted"] else f"{size:,} bytes, {kind}"
    cut = f"\n… {left_out:,} bytes more" if left_out else ""
    return plain(
        f"{table(('FACT', ''), facts)}\n\n{table(('HEADER', 'VALUE', 'MEANING'), headers)}\n\n"
        f"PAYLOAD, {what}\n{text}{cut}"
    )


def job_line(job: Document) -> str:
    """How far a job is, on one line, with a bar."""
    total, dealt_with = job["total"], job["done"] + sum(job["held"].values())
    share = 1.0 if total == 0 else dealt_with / total if total else 0.0
    filled = round(_BAR * min(1.0, share))
    bar = "#" * filled + "." * (_BAR - filled)
    of = "?" if total is None else f"{total:,}"
    return f"[{bar}] {dealt_with:,} of {of}  {job['state']}"


def job_text(job: Document) -> str:
    """What became of a job."""
    lines = [f"job {job['id']}: {job['kind']} {job['state']}, {job['done']:,} of {job['total'] or 0:,} done"]
    lines += [f"{count:,} left as they are: {why.replace('_', ' ')}" for why, count in job["held"].items()]
    if job["error"]:
        lines.append(job["error"])
    return plain("\n".join(lines))


def jobs_text(found: Document) -> str:
    """All jobs."""
    rows = [
        (
            job["id"],
            job["kind"],
            job["state"],
            f"{job['done']:,}",
            None if job["total"] is None else f"{job['total']:,}",
            job["by"],
            _when(job["created_at"]),
            ", ".join(_selected(job["selection"])),
        )
        for job in found["jobs"]
    ]
    return plain(table(("JOB", "KIND", "STATE", "DONE", "OF", "BY", "ORDERED", "SELECTED"), rows))


def _selected(selection: Document) -> Iterator[str]:
    for name, value in selection.items():
        if value is not None:
            is_time = name in {"since_at", "until_at"}
            yield f"{name.removesuffix('_at').removeprefix('error_')} {_when(value) if is_time else value}"


def plain(text: str) -> str:
    """Text that a terminal shows and does not obey: what is not printable stands as its escape."""
    return "".join(
        character
        if character.isprintable()
        else _VISIBLE.get(character) or character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )


def _groups(found: Document) -> str:
    rows = [
        (
            f"{one['count']:,}",
            one["topic"],
            one["fingerprint"],
            one["error_class"],
            _cut(one["message"]),
            f"{one['definition'] or '-'} {one['schema_version']}".strip(),
            one["tenant_count"],
            _when(one["first_at"]),
            _when(one["last_at"]),
        )
        for one in found["groups"]
    ]
    headers = ("COUNT", "TOPIC", "FINGERPRINT", "CLASS", "MESSAGE", "DEFINITION", "TENANTS", "FIRST", "LAST")
    shown, kinds = len(rows), found["kinds"]
    cut = f"\n\n{shown:,} of {kinds:,} kinds shown, those with most" if shown < kinds else ""
    return f"{table(headers, rows)}{cut}"


def _cut(message: str) -> str:
    return message if len(message) <= _MESSAGE_CHARS else f"{message[: _MESSAGE_CHARS - 1]}…"


def _when(seconds: float | None) -> str:
    return "-" if seconds is None else rfc3339(seconds)[:19] + "Z"
