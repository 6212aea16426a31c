"""What is written on a dead letter, by us or by another program: where it came from, and why it failed.

Owns: the header names of every program whose dead letters are read, and their encodings. Must not know: where
any of it is kept, what is done with it.

Sources: lib-streaming `internal/dlqheader`; Kafka Connect `DeadLetterQueueReporter`; spring-kafka
`DeadLetterPublishingRecoverer` and `DeadLetterPublishingRecovererFactory`, whose second set of names is that
of `@RetryableTopic`. Spring writes numbers as big-endian integers, and appends its "original" headers again
on each hop: the first is the true origin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from pipeline import dlq
from pipeline.record import RawHeaders
from pipeline.redrive.model import Coordinates

__all__ = ["OMITTED_BY_LIB_STREAMING", "STAGEPOST", "UNKNOWN", "Facts", "is_forensic", "read_facts"]

STAGEPOST = "stagepost"
LIB_STREAMING = "lib-streaming"
CONNECT = "connect"
SPRING = "spring"
UNKNOWN = "unknown"
"""A record without any of these headers: it can be shown and discarded, but not sent back."""

_LIB_STREAMING = "x-lerian-dlq-"
OMITTED_BY_LIB_STREAMING = "x-lerian-dlq-payload-omitted"
_CONNECT = "__connect.errors."
_SPRING_PLAIN = "kafka_dlt-"
_SPRING_RETRY = "kafka_"
_SPRING_NAMES = ("original-", "exception-", "key-exception-")
_NO_OFFSET = -1


class Facts(NamedTuple):
    """What a dead letter says of itself. Texts as they were written; empty or None where it says nothing."""

    dialect: str
    came_from: Coordinates
    """The topic it was for, and where it was before it failed: for ours in staging, else in that topic.
    Partition or offset -1: not known."""
    error_class: str
    message: str
    fingerprint: str
    disposition: str
    first_failure_at: float | None


def read_facts(headers: RawHeaders) -> Facts:
    """The facts of any dead letter. Raises nothing, whatever the headers hold."""
    first: dict[str, bytes] = {}
    last: dict[str, bytes] = {}
    for name, value in headers:
        if value is not None:
            first.setdefault(name, value)
            last[name] = value
    for sign, read in _READERS:
        if sign in first:
            return read(first, last)
    return Facts(UNKNOWN, Coordinates("", -1, _NO_OFFSET), UNKNOWN, "", "", "", None)


def is_forensic(dialect: str, name: str) -> bool:
    """Whether a header was put on by the program that wrote the dead letter, and is taken off before it is
    sent back."""
    if dialect == SPRING:
        for prefix in (_SPRING_PLAIN, _SPRING_RETRY):
            if name.startswith(tuple(prefix + part for part in _SPRING_NAMES)):
                return True
        return name.startswith("retry_topic-")
    prefixes = {STAGEPOST: dlq.PREFIX, LIB_STREAMING: _LIB_STREAMING, CONNECT: _CONNECT}
    return dialect in prefixes and name.startswith(prefixes[dialect])


Headers = Mapping[str, bytes]


def _stagepost(_: Headers, last: Headers) -> Facts:
    # The block stands behind whatever a hostile producer staged: of a repeated name the last is ours.
    place = Coordinates(
        _text(last, dlq.SOURCE_TOPIC), _number(last, dlq.STAGING_PARTITION), _number(last, dlq.STAGING_OFFSET)
    )
    return Facts(
        STAGEPOST,
        place,
        _text(last, dlq.ERROR_CLASS),
        _text(last, dlq.ERROR_MESSAGE),
        _text(last, dlq.FINGERPRINT),
        _text(last, dlq.DISPOSITION),
        _time(last, dlq.FIRST_FAILURE_AT),
    )


def _lib_streaming(_: Headers, last: Headers) -> Facts:
    partition = _number(last, _LIB_STREAMING + "source-partition")
    offset = _number(last, _LIB_STREAMING + "source-offset")
    return Facts(
        LIB_STREAMING,
        Coordinates(_text(last, _LIB_STREAMING + "source-topic"), partition, offset),
        _text(last, _LIB_STREAMING + "error-class"),
        _text(last, _LIB_STREAMING + "error-message"),
        "",
        "",
        _time(last, _LIB_STREAMING + "first-failure-at"),
    )


def _connect(_: Headers, last: Headers) -> Facts:
    place = Coordinates(
        _text(last, _CONNECT + "topic"),
        _number(last, _CONNECT + "partition"),
        _number(last, _CONNECT + "offset"),
    )
    error_class = _text(last, _CONNECT + "exception.class.name")
    return Facts(CONNECT, place, error_class, _text(last, _CONNECT + "exception.message"), "", "", None)


def _spring(prefix: str) -> Callable[[Headers, Headers], Facts]:
    def read(first: Headers, last: Headers) -> Facts:
        place = Coordinates(
            _text(first, prefix + "original-topic"),
            _big_endian(first, prefix + "original-partition"),
            _big_endian(first, prefix + "original-offset"),
        )
        # `exception-fqcn` is the listener's wrapper; what went wrong is its cause.
        cause = _text(last, prefix + "exception-cause-fqcn")
        error_class = cause or _text(last, prefix + "exception-fqcn")
        return Facts(SPRING, place, error_class, _text(last, prefix + "exception-message"), "", "", None)

    return read


_READERS = (
    (dlq.SOURCE_TOPIC, _stagepost),
    (_LIB_STREAMING + "source-topic", _lib_streaming),
    (_CONNECT + "topic", _connect),
    (_SPRING_PLAIN + "original-topic", _spring(_SPRING_PLAIN)),
    (_SPRING_RETRY + "original-topic", _spring(_SPRING_RETRY)),
)


def _text(headers: Headers, name: str) -> str:
    return headers.get(name, b"").decode(errors="replace")


def _number(headers: Headers, name: str) -> int:
    text = headers.get(name, b"")
    return int(text) if text.isdigit() and len(text) < 19 else -1


def _big_endian(headers: Headers, name: str) -> int:
    data = headers.get(name, b"")
    return int.from_bytes(data, "big", signed=True) if len(data) in {4, 8} else _number(headers, name)


def _time(headers: Headers, name: str) -> float | None:
    try:
        time = datetime.fromisoformat(_text(headers, name))
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        return None
