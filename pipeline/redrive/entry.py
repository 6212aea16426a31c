"""The records of `<ns>.dlq.index` and `<ns>.dlq.state`: what is kept of a dead letter, and what became of it.

Owns: their keys and their JSON. Must not know: who writes or reads them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic_core import to_json

from pipeline.dlq import REDRIVE_COUNT, fingerprint_of, without_variable_parts
from pipeline.record import OutRecord, RawHeaders
from pipeline.redrive.dialects import read_facts
from pipeline.redrive.model import Coordinates
from pipeline.redrive.selection import LetterState
from pipeline.staging import DEFINITION, ID, SOURCE, TENANT, record_size

__all__ = ["coordinates_key", "index_entry", "redrive_count", "state_entry"]

_CHARS = 256
_MAX_COUNT = 1_000_000
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def coordinates_key(place: Coordinates) -> bytes:
    """The key of both records: topic/partition/offset (Q5)."""
    return f"{place.topic}/{place.partition}/{place.offset}".encode()


def index_entry(
    place: Coordinates,
    key: bytes | None,
    value: bytes | None,
    headers: RawHeaders,
    *,
    failed_at: float,
    schema_version: str = "",
) -> OutRecord:
    """The index record of a dead letter that lies at `place`; a few hundred bytes, whatever the letter holds.

    `failed_at`: when it was written, seconds since 1970. Texts are cleaned, and cut to 256 characters; there is
    nothing of the payload in it.
    """
    facts = read_facts(headers)
    fields = {name: content for name, content in headers if content is not None}
    definition = _attribute(fields, DEFINITION, "type")
    error_class, message = _clean(facts.error_class), without_variable_parts(facts.message)
    document = {
        "topic": place.topic,
        "partition": place.partition,
        "offset": place.offset,
        "class": error_class,
        "message": _clean(message),
        "fingerprint": _clean(facts.fingerprint)
        or fingerprint_of(error_class, message, definition, schema_version),
        "definition": definition,
        "schema_version": _clean(schema_version),
        "disposition": _clean(facts.disposition),
        "tenant": _attribute(fields, TENANT, "tenantid"),
        "id": _attribute(fields, ID, "id"),
        "source": _attribute(fields, SOURCE, "source"),
        "first_failure_at": failed_at if facts.first_failure_at is None else facts.first_failure_at,
        "failed_at": failed_at,
        "redrives": redrive_count(fields),
        "size": record_size(key, value, headers),
        "dialect": facts.dialect,
        "source_topic": _clean(facts.came_from.topic),
        "source_partition": facts.came_from.partition,
        "source_offset": facts.came_from.offset,
    }
    return coordinates_key(place), to_json(document), [("content-type", b"application/json")]


def state_entry(place: Coordinates, state: LetterState, *, at: float, by: str, job: str) -> OutRecord:
    """The record that says what became of a dead letter; `by` is who asked for it, `job` the job's id (Q5)."""
    document = {
        "topic": place.topic,
        "partition": place.partition,
        "offset": place.offset,
        "state": state.value,
        "at": at,
        "by": by,
        "job": job,
    }
    return coordinates_key(place), to_json(document), [("content-type", b"application/json")]


def redrive_count(fields: Mapping[str, bytes]) -> int:
    """How often a record has been redriven by its headers; 0 for what is no such number."""
    text = fields.get(REDRIVE_COUNT, b"")
    return min(int(text), _MAX_COUNT) if text.isdigit() and len(text) < 10 else 0


def _attribute(fields: Mapping[str, bytes], staged: str, attribute: str) -> str:
    """An attribute of the event, by its staging header or its CloudEvents header in either dialect."""
    for name in (staged, f"ce_{attribute}", f"ce-{attribute}"):
        if fields.get(name):
            return _clean(fields[name][: 4 * _CHARS].decode(errors="replace"))
    return ""


def _clean(text: str) -> str:
    return _UNPRINTABLE.sub("\ufffd", text[:_CHARS])
