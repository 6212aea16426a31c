"""What is kept of a staging record that does not reach its target: its dead letter, or the audit record of a skip.

Owns: both records (Q2, T6). Must not know: topics' partitions, who writes them, the clock.
"""

from __future__ import annotations

import re

from pydantic_core import to_json

from pipeline import staging
from pipeline.clock import rfc3339
from pipeline.dlq import Disposition, Failure, clean_message, dead_letter_headers
from pipeline.errors import ErrorClass
from pipeline.park import is_skew
from pipeline.plan import Rejected
from pipeline.record import OutRecord, RawHeaders, ReadRecord

__all__ = ["dead_letter", "moved_on", "skip_record"]

_SHOWN_BYTES = 256
_CLASS = re.compile(rf"\b({'|'.join(ErrorClass)})\b")
_NO_ANSWER = "no answer"
_PAUSED = "paused by "


def dead_letter(
    record: ReadRecord,
    rejected: Rejected,
    framed: RawHeaders,
    *,
    target: str,
    partition: int,
    retries: int,
    failed_at: float,
    producer_id: str,
) -> OutRecord:
    """The dead letter of a record of a staging partition, on its way to `target`; `framed` are the CloudEvents
    headers it had been given, if it came so far; `retries`: how often it was sent again."""
    route = rejected.route
    headers = dead_letter_headers(
        record.headers,
        framed,
        rejected.failure,
        source_topic=target,
        staging_partition=partition,
        staging_offset=record.offset,
        retry_count=retries,
        failed_at=failed_at,
        producer_id=producer_id,
        definition=_shown(record, staging.DEFINITION),
        schema_version=route.definition.schema_version if route is not None else "",
    )
    return record.key, record.value, headers


def moved_on(name: str, reason: str, *, by: str, why: str) -> Failure:
    """The failure of what was parked under `name` for a `reason`, and which an operator lets wait no longer.

    Its class is that of the trouble it was parked for; where that names none, as with a pause, the default for the
    unknown (C1).
    """
    said = f": '{why}'" if why else ""
    message = f"{reason}; moved on from parking by '{by}'{said}"
    if is_skew(name):
        return Failure(ErrorClass.VALIDATION, f"'{name}' is {message}", Disposition.OPERATOR)
    if reason.startswith(_PAUSED):
        return Failure(ErrorClass.BROKER_UNAVAILABLE, message, Disposition.OPERATOR)
    found = _CLASS.search(reason)
    if found is not None:
        return Failure(ErrorClass(found[1]), message, Disposition.SYSTEMIC)
    error_class = ErrorClass.NETWORK_TIMEOUT if _NO_ANSWER in reason else ErrorClass.BROKER_UNAVAILABLE
    return Failure(error_class, message, Disposition.SYSTEMIC)


def skip_record(
    record: ReadRecord, failure: Failure, *, topic: str, partition: int, at: float, producer_id: str
) -> OutRecord:
    """The audit record of a record that is skipped: its id, its coordinates in staging, the reason."""
    entry = {
        "action": "skipped",
        "at": rfc3339(at),
        "id": _shown(record, staging.ID),
        "definition": _shown(record, staging.DEFINITION),
        "topic": topic,
        "partition": partition,
        "offset": record.offset,
        "error_class": failure.error_class,
        "reason": clean_message(failure.message),
        "by": producer_id,
    }
    key = f"{topic}/{partition}/{record.offset}".encode()
    return key, to_json(entry), [("content-type", b"application/json")]


def _shown(record: ReadRecord, name: str) -> str:
    """A header of a record as text of at most 256 bytes; empty where there is none."""
    return (dict(record.headers).get(name) or b"")[:_SHOWN_BYTES].decode(errors="replace")
