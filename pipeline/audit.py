"""The audit record: who changed what, as it stands on `<ns>.audit` (O3).

Owns: its form, written and read. Must not know: Kafka clients, what any change does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue
from pydantic_core import from_json, to_json

from pipeline.clock import rfc3339
from pipeline.record import RawHeader

__all__ = ["Entry", "entry_of", "record_of"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One change. `action` is a word such as `breaker.reset`, `by` the name of a token or of a worker."""

    action: str
    by: str
    at: float
    """Seconds since 1970-01-01 UTC."""
    subject: str
    """What was changed: a topic, a job, a record."""
    facts: Mapping[str, JsonValue] = field(default_factory=dict)


def record_of(entry: Entry) -> tuple[bytes, bytes, list[RawHeader]]:
    """Key, value and headers of the audit record."""
    value = {
        "action": entry.action,
        "at": rfc3339(entry.at),
        "by": entry.by,
        "subject": entry.subject,
        **entry.facts,
    }
    return entry.subject.encode(), to_json(value), [("content-type", b"application/json")]


def entry_of(value: bytes | None) -> dict[str, JsonValue]:
    """The fields of an audit record, whoever wrote it; empty where it is none."""
    try:
        found = from_json(value or b"null")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
