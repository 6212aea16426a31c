"""The dead letter: the failed staging record as it was, and what an operator needs to know about its failure (Q2).

Owns: the `dlq-` header names, their order, the cut and the cleaning of messages, the fingerprint.
Must not know: Kafka clients, who decided that the record failed.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum

from pipeline.clock import rfc3339
from pipeline.errors import ErrorClass
from pipeline.record import RawHeader, RawHeaders
from pipeline.staging import is_rfc3339

__all__ = [
    "CARRIED",
    "FIRST_FAILURE_AT",
    "MAX_MESSAGE_BYTES",
    "PREFIX",
    "REDRIVE_COUNT",
    "Disposition",
    "Failure",
    "clean_message",
    "dead_letter_headers",
    "fingerprint",
    "fingerprint_of",
    "without_variable_parts",
]

PREFIX = "dlq-"
SOURCE_TOPIC = "dlq-source-topic"
ERROR_CLASS = "dlq-error-class"
ERROR_MESSAGE = "dlq-error-message"
RETRY_COUNT = "dlq-retry-count"
FIRST_FAILURE_AT = "dlq-first-failure-at"
PRODUCER_ID = "dlq-producer-id"
STAGING_PARTITION = "dlq-staging-partition"
STAGING_OFFSET = "dlq-staging-offset"
DISPOSITION = "dlq-disposition"
FINGERPRINT = "dlq-fingerprint"
REDRIVE_COUNT = "dlq-redrive-count"
PAYLOAD_OMITTED = "dlq-payload-omitted"
PAYLOAD_BYTES = "dlq-payload-bytes"

CARRIED = frozenset({FIRST_FAILURE_AT, REDRIVE_COUNT})
"""What a redrive leaves on the staging record (Q3); it does not count towards the record's cap."""

MAX_MESSAGE_BYTES = 4096

# What hides a secret hides too much rather than too little, and takes time linear in the message: a foreign
# producer may have written parts of it.
_QUOTED = (
    r"\\\"(?:(?!\\\").)*(?:\\\"|\Z)"  # quotes that are escaped themselves, as in JSON within a message
    r"|\"(?:[^\"\\]|\\.?)*(?:\"|\Z)"
    r"|'(?:[^'\\]|\\.?)*(?:'|\Z)"
)
_URL = re.compile(r"://(\S+)")
_SECRET_PAIR = re.compile(
    r"((?:pass(?:word|wd|phrase)|pwd|secret|token|credential"
    r"|(?:api|access|account|private|secret|signing)[_-]?key)s?\\?[\"']?\s*[=:]\s*)"
    rf"(?:{_QUOTED}|\S+)",
    re.IGNORECASE | re.DOTALL,
)
_AUTHORIZATION = re.compile(
    rf"((?:authorization|cookie)\\?[\"']?\s*[=:]\s*)(?:{_QUOTED}|[^\r\n]+)", re.IGNORECASE | re.DOTALL
)
_BEARER = re.compile(r"(\bbearer\s+)[\w.~+/=-]{8,}", re.IGNORECASE)
_AWS_KEY = re.compile(r"(?:AKIA|ASIA)[0-9A-Z]{16}")
_PRIVATE_KEY = re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?:-----END|\Z)", re.DOTALL)
_VARIABLE_PART = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|0x[0-9a-f]+|'[^']*'|\"[^\"]*\""
    r"|\d(?:[\d,.]*\d)?",
    re.IGNORECASE,
)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")


class Disposition(StrEnum):
    """Who can put a dead letter right."""

    POISON = "poison"
    SYSTEMIC = "systemic"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a record is dead-lettered. `message` is text for people; `disposition` says who can put it right."""

    error_class: ErrorClass
    message: str
    disposition: Disposition = Disposition.POISON


def clean_message(message: str) -> str:
    """A message fit for a header: no credentials, no control characters, at most 4,096 bytes cut on a character."""
    message = _PRIVATE_KEY.sub(r"\1***", message)
    message = _URL.sub(_without_userinfo, message)
    for labelled in (_AUTHORIZATION, _SECRET_PAIR, _BEARER):
        message = labelled.sub(r"\1***", message)
    message = _UNPRINTABLE.sub(" ", _AWS_KEY.sub("***", message))
    encoded = message.encode()
    if len(encoded) <= MAX_MESSAGE_BYTES:
        return message
    return encoded[:MAX_MESSAGE_BYTES].decode(errors="ignore")


def _without_userinfo(url: re.Match[str]) -> str:
    # To the last "@": a password with an "@" or a "/" in it is hidden whole.
    _userinfo, at, rest = url[1].rpartition("@")
    return f"://***@{rest}" if at else url[0]


def fingerprint(failure: Failure, definition: str, schema_version: str) -> str:
    """16 hex digits that are equal for failures of one kind: class, message without its variable parts,
    definition and schema version."""
    return fingerprint_of(failure.error_class, failure.message, definition, schema_version)


def fingerprint_of(error_class: str, message: str, definition: str, schema_version: str) -> str:
    """The same for a failure that another program reported, whose classes are its own."""
    text = "\n".join((error_class, without_variable_parts(message), definition, schema_version))
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]


def without_variable_parts(message: str) -> str:
    """A message with ids, numbers and quoted texts as `#`, so that failures of one kind read alike."""
    return _VARIABLE_PART.sub("#", message)


def dead_letter_headers(
    original: RawHeaders,
    framed: RawHeaders,
    failure: Failure,
    *,
    source_topic: str,
    staging_partition: int,
    staging_offset: int,
    retry_count: int,
    failed_at: float,
    producer_id: str,
    definition: str = "",
    schema_version: str = "",
) -> list[RawHeader]:
    """All headers of a dead letter in the order of Q2.

    `original` are the staging record's headers, kept byte for byte; `framed` its CloudEvents headers where
    framing came so far, else empty. A `dlq-first-failure-at` that rode through staging (Q3) keeps its value
    and moves into the block, so that the record does not grow with each redrive; one that is no time is no
    time of ours, and stays where it is.
    """
    first_failure_at = next(
        (value for name, value in original if name == FIRST_FAILURE_AT and value and is_rfc3339(value)), None
    )
    return [
        *(
            header
            for header in original
            if first_failure_at is None or header != (FIRST_FAILURE_AT, first_failure_at)
        ),
        *framed,
        (SOURCE_TOPIC, source_topic.encode()),
        (ERROR_CLASS, failure.error_class.encode()),
        (ERROR_MESSAGE, clean_message(failure.message).encode()),
        (RETRY_COUNT, str(retry_count).encode()),
        (FIRST_FAILURE_AT, first_failure_at or rfc3339(failed_at).encode()),
        (PRODUCER_ID, producer_id.encode()),
        (STAGING_PARTITION, str(staging_partition).encode()),
        (STAGING_OFFSET, str(staging_offset).encode()),
        (DISPOSITION, failure.disposition.encode()),
        (FINGERPRINT, fingerprint(failure, definition, schema_version).encode()),
    ]
