"""From a dead letter back to the record that failed: byte for byte, less what was added (Q3). Pure.

Owns: which headers go, which stay, where the record is sent, when it must not be. Must not know: Kafka clients,
the index, jobs.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from pipeline import dlq
from pipeline.clock import rfc3339
from pipeline.cloudevents import is_framing_header
from pipeline.errors import StagepostError
from pipeline.record import OutRecord, RawHeader, RawHeaders, ReadRecord
from pipeline.redrive import dialects
from pipeline.redrive.dialects import Facts, is_forensic, read_facts
from pipeline.redrive.entry import redrive_count
from pipeline.redrive.model import Coordinates

__all__ = ["Held", "NotRedriven", "WayBack", "omitted_from", "way_back"]

_OMITTED = frozenset({dlq.PAYLOAD_OMITTED, dialects.OMITTED_BY_LIB_STREAMING})
_SPECVERSION = ("ce_specversion", "ce-specversion")


class Held(StrEnum):
    """Why a dead letter is left as it is. The value stands in a job's counts."""

    TOO_OFTEN = "redriven_too_often"
    GONE = "deleted_from_its_topic"
    NO_PAYLOAD = "payload_not_kept"
    NO_ORIGIN = "origin_unknown"
    NO_TOPIC = "topic_missing"
    REFUSED = "refused_by_broker"


class NotRedriven(StagepostError):
    """A dead letter cannot be sent back, or must not be."""

    def __init__(self, why: Held) -> None:
        self.why = why
        super().__init__(why.value)


class WayBack(NamedTuple):
    """A record and where it is sent. `partition` -1: by its key."""

    topic: str
    partition: int
    record: OutRecord


def omitted_from(headers: RawHeaders, staging_topic: str) -> Coordinates | None:
    """Where the payload is that a dead letter had to leave out; None where it has left out nothing.

    Raises `NotRedriven` where it does not say.
    """
    if _OMITTED.isdisjoint(dict(headers)):  # as a rule: a redrive asks this of every letter
        return None
    facts = read_facts(headers)
    name = dlq.PAYLOAD_OMITTED if facts.dialect == dialects.STAGEPOST else dialects.OMITTED_BY_LIB_STREAMING
    if (name, b"true") not in headers:
        return None
    topic = staging_topic if facts.dialect == dialects.STAGEPOST else facts.came_from.topic
    place = Coordinates(topic, facts.came_from.partition, facts.came_from.offset)
    if place.partition < 0 or place.offset < 0:
        raise NotRedriven(Held.NO_PAYLOAD)
    return place


def way_back(
    letter: ReadRecord,
    original: ReadRecord | None,
    *,
    staging_topic: str,
    failed_at: float,
    max_redrives: int,
) -> WayBack:
    """The record to send, and where: ours to staging, another program's to the topic it had been read from.

    `original`: what stands at `omitted_from`, where the payload is not in the letter. `failed_at` is told as the
    first failure where the letter does not tell it. Raises `NotRedriven`.
    """
    headers = letter.headers
    facts = read_facts(headers)
    count = redrive_count({name: value for name, value in headers if value is not None})
    if count >= max_redrives:
        raise NotRedriven(Held.TOO_OFTEN)
    value = _value(letter, original, omitted_from(headers, staging_topic))
    counted: RawHeader = (dlq.REDRIVE_COUNT, str(count + 1).encode())
    if facts.dialect == dialects.STAGEPOST:
        kept = _without_framing(headers)
        first = _first_failure(facts, failed_at)
        return WayBack(staging_topic, facts.came_from.partition, (letter.key, value, [*kept, first, counted]))
    if not facts.came_from.topic:
        raise NotRedriven(Held.NO_ORIGIN)
    kept = [
        header
        for header in headers
        if not is_forensic(facts.dialect, header[0]) and header[0] != dlq.REDRIVE_COUNT
    ]
    return WayBack(facts.came_from.topic, facts.came_from.partition, (letter.key, value, [*kept, counted]))


def _value(letter: ReadRecord, original: ReadRecord | None, omitted: Coordinates | None) -> bytes | None:
    if omitted is None:
        return letter.value
    if original is None or original.key != letter.key or not _is_same_event(letter.headers, original.headers):
        raise NotRedriven(Held.NO_PAYLOAD)
    return original.value


def _is_same_event(letter: RawHeaders, original: RawHeaders) -> bool:
    """Whether the original's headers stand in front in the letter: else its topic was made anew meanwhile."""
    kept: Callable[[RawHeader], bool] = lambda header: not header[0].startswith(dlq.PREFIX)  # noqa: E731
    wanted = list(filter(kept, original))
    return list(filter(kept, letter))[: len(wanted)] == wanted


def _without_framing(headers: RawHeaders) -> list[RawHeader]:
    """The staging record's own headers: without `dlq-`, and without the CloudEvents headers that framing put
    behind them, which begin with the content type, directly before the version."""
    kept = [header for header in headers if not header[0].startswith(dlq.PREFIX)]
    at = len(kept)
    while at and is_framing_header(kept[at - 1][0]):
        at -= 1
        if kept[at][0] in _SPECVERSION:
            return kept[: at - 1] if at else []
    return kept


def _first_failure(facts: Facts, failed_at: float) -> RawHeader:
    at = failed_at if facts.first_failure_at is None else facts.first_failure_at
    return dlq.FIRST_FAILURE_AT, rfc3339(at).encode()
