"""Deciding: a batch of staging records in, the records to write out. Pure; the hot path of the worker.

Owns: catalog lookup, policy, checks of a staging record, framing, key and partition, who is rejected.
Must not know: Kafka clients, Faust, time, what has been written before. Whatever it decides is data.

What it costs per event decides what the worker costs: constant headers are shared, keys and sources are
looked up, no JSON is parsed for a record whose stager checked it against this very catalog (`stage-catalog`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from pipeline import staging
from pipeline.dlq import Disposition, Failure
from pipeline.errors import ErrorClass, InvalidField, PayloadRefused, PolicyError, RecordTooLarge
from pipeline.routes import Route, Router
from pipeline.staging import RawHeader, RawHeaders

__all__ = ["Column", "Limits", "OutRecord", "Plan", "Rejected", "StagedRecord", "is_dead_lettered", "plan"]

OutRecord = tuple[bytes | None, bytes | None, list[RawHeader]]
"""What goes on a topic: key, value, headers."""

_REQUIRED = (staging.VERSION, staging.DEFINITION, staging.ID, staging.TIME, staging.SOURCE)
_TIME_BYTES = 64
_OUR_HEADERS_BYTES = 8_192
"""More than key and staging headers can have, each within its limit (S5): few records need counting exactly."""


class StagedRecord(Protocol):
    """A staging record as a Kafka consumer hands it out."""

    @property
    def offset(self) -> int:
        """Position in its staging partition."""

    @property
    def timestamp(self) -> int:
        """When it was written, in milliseconds since 1970-01-01 UTC."""

    @property
    def key(self) -> bytes | None:
        """The partition key as staged."""

    @property
    def value(self) -> bytes | None:
        """The payload, or None for no data."""

    @property
    def headers(self) -> RawHeaders:
        """The staging headers (S10) and whatever else the producer added."""


class Limits:
    """The caps a staging record must keep, in bytes."""

    __slots__ = ("payload", "record")

    def __init__(self, payload: int, record: int) -> None:
        self.payload = payload
        self.record = record


class Column:
    """What goes to one partition of one target, in order: the records, and for each the index of its staging record."""

    __slots__ = ("records", "route", "sources")

    def __init__(self, route: Route) -> None:
        self.route = route
        self.records: list[OutRecord] = []
        self.sources: list[int] = []


class Rejected:
    """A staging record that does not go to its target: its index in the batch, why, its route if known, and
    whether it is dead-lettered (else skipped with an audit record, D6)."""

    __slots__ = ("dead_letter", "failure", "index", "route")

    def __init__(
        self, index: int, failure: Failure, route: Route | None, *, dead_letter: bool = True
    ) -> None:
        self.index = index
        self.failure = failure
        self.route = route
        self.dead_letter = dead_letter


class Plan:
    """The outcome: columns by (topic, partition), rejected records, and topics whose partition count is not known.

    Where `unknown_topics` is not empty the plan is incomplete: learn the counts and plan again.
    """

    __slots__ = ("columns", "rejected", "unknown_topics")

    def __init__(self) -> None:
        self.columns: dict[tuple[str, int], Column] = {}
        self.rejected: list[Rejected] = []
        self.unknown_topics: set[str] = set()


def plan(
    records: Sequence[StagedRecord], router: Router, partitions: Mapping[str, int], limits: Limits
) -> Plan:
    """What is to be written for these staging records, in their order.

    In: records of one staging partition; the routes; the partition count of each topic known so far.
    Out: a `Plan` in which every record stands exactly once, in a column or among the rejected, unless its
    topic is unknown. Does no I/O, raises nothing for any record's content.
    """
    result = Plan()
    columns, route_of = result.columns, router.route
    tenants, subjects, sources = router.tenants, router.subjects, router.sources
    ce_id, ce_time, ce_subject = router.names
    fingerprint = router.fingerprint
    for index, record in enumerate(records):
        headers = record.headers
        fields: dict[str, bytes] = dict(headers)  # type: ignore[arg-type]
        if None in fields.values():  # Kafka allows it; to us it says as much as no header
            fields = {name: value for name, value in headers if value is not None}
        get = fields.get
        try:
            route = route_of(fields[staging.DEFINITION])
            event_id, time, source = fields[staging.ID], fields[staging.TIME], fields[staging.SOURCE]
            if route is None or fields[staging.VERSION] != staging.VERSION_1:
                raise KeyError  # noqa: TRY301 -- the same exit as a missing header, without a call per record
            tenant, subject, seal = get(staging.TENANT), get(staging.SUBJECT), get(staging.CATALOG)
            source_header = sources.get(source)
            if route.guarded or staging.POLICY in fields:
                _check_policy_and_source(fields, source, route, router)
            _check_texts(event_id, time, subject)
            if tenant:
                key = tenants.get(tenant)
            elif subject:
                key = subjects.get(subject)
            else:
                key = router.key_of_id(event_id)
            if route.system_key is not None:
                key = route.system_key
            known = 5 + (tenant is not None) + (subject is not None) + (seal is not None)
            others = _others(headers, known + (staging.POLICY in fields)) if len(headers) > known else ()
            sealed = seal == fingerprint
            _check_sizes(record, others, limits, sealed=sealed)
            if not sealed:
                route.check_body(record.value)
            framed: list[RawHeader] = [
                *route.constant,
                source_header,
                (ce_id, event_id),
                (ce_time, time),
                *key.headers,
            ]
            if subject:
                framed.append((ce_subject, subject))
            if others:
                framed += _passed_on(others)
        except KeyError:
            result.rejected.append(_missing_or_unknown(index, record, fields, router))
            continue
        except (InvalidField, PayloadRefused, PolicyError, RecordTooLarge, _Disabled) as error:
            result.rejected.append(
                _rejected(index, error, record, route_of(fields[staging.DEFINITION]), router)
            )
            continue
        count = partitions.get(route.topic)
        if count is None:
            result.unknown_topics.add(route.topic)
            continue
        at = (route.topic, key.hash % count)
        column = columns.get(at)
        if column is None:
            column = columns[at] = Column(route)
        column.records.append((key.data, record.value, framed))
        column.sources.append(index)
    return result


class _Disabled(Exception):
    """Internal: the effective policy says that the event is not to be delivered."""


def _check_texts(event_id: bytes, time: bytes, subject: bytes | None) -> None:
    """Cheap for the usual record: one decode and one scan for all of its texts; the slow path names the field."""
    if len(time) > _TIME_BYTES or not staging.is_rfc3339(time):
        raise InvalidField(
            staging.TIME, f"is not an RFC 3339 timestamp with an offset in {_TIME_BYTES} bytes"
        )
    try:
        # The blank keeps a character that is cut at the end of one from being completed by the other.
        clean = (event_id + b" " + subject if subject else event_id).decode().isprintable()
    except UnicodeDecodeError:
        clean = False
    if not clean or not event_id or len(event_id) > 256 or (subject and len(subject) > 1024):
        staging.check_bytes("id", event_id)
        if subject:
            staging.check_bytes("subject", subject)


def _check_sizes(record: StagedRecord, others: RawHeaders, limits: Limits, *, sealed: bool) -> None:
    value = record.value
    size = len(value) if value is not None else 0
    if size > limits.payload:
        raise RecordTooLarge("the payload", size, limits.payload, "STREAMING_MAX_PAYLOAD_BYTES")
    bound = size + _OUR_HEADERS_BYTES + (staging.record_size(None, None, others) if others else 0)
    if bound > limits.record or not sealed or len(record.key or b"") > 1_024:
        size = staging.record_size(record.key, value, record.headers)
        if size > limits.record:
            raise RecordTooLarge("the record", size, limits.record, "STREAMING_MAX_RECORD_BYTES")


def _check_policy_and_source(
    fields: Mapping[str, bytes], source: bytes, route: Route, router: Router
) -> None:
    if route.sources is not None and source not in route.sources:
        raise InvalidField(
            staging.SOURCE,
            f"{source.decode(errors='replace')!r} may not stage {route.definition.key!r}: it is not among "
            "the definition's sources",
        )
    if not router.policy(route, fields.get(staging.POLICY)).enabled:
        raise _Disabled


def _others(headers: RawHeaders, ours: int) -> RawHeaders:
    """The headers that are not staging headers, of which `ours` are in use. Raises where one of them stands twice."""
    others = [header for header in headers if header[0] not in staging.NAMES]
    if len(headers) - len(others) != ours:
        _check_once(headers)
    return others


def _passed_on(others: RawHeaders) -> list[RawHeader]:
    """The headers that travel on as they are: trace context and the caller's own (T2)."""
    passed = [header for header in others if not staging.is_reserved(header[0])]
    for name, _ in passed:
        if not name.isascii():
            _check_name(name)
    return passed


def _check_once(headers: RawHeaders) -> None:
    seen: set[str] = set()
    for name, _ in headers:
        if name in staging.NAMES and name in seen:
            raise InvalidField(name, "stands twice")
        seen.add(name)


def _check_name(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InvalidField("headers", f"name {name[:40]!a} is not UTF-8") from error


def _missing_or_unknown(
    index: int, record: StagedRecord, fields: Mapping[str, bytes], router: Router
) -> Rejected:
    """Why the record could not even be looked up."""
    route = router.route(fields.get(staging.DEFINITION, b""))
    missing = [name for name in _REQUIRED if name not in fields]
    if missing:
        failure = Failure(ErrorClass.VALIDATION, f"required header missing: {', '.join(missing)}")
        return Rejected(index, failure, route, dead_letter=is_dead_lettered(record, route, router))
    if fields[staging.VERSION] != staging.VERSION_1:
        version = fields[staging.VERSION][:32].decode(errors="replace")
        return Rejected(index, _operator(f"stage-version {version!r} is not known to this worker"), route)
    key = fields[staging.DEFINITION][:256].decode(errors="replace")
    return Rejected(index, _operator(f"definition {key!r} is not in this worker's catalog"), None)


def _rejected(
    index: int, error: Exception, record: StagedRecord, route: Route | None, router: Router
) -> Rejected:
    if route is not None and isinstance(error, _Disabled):
        return Rejected(
            index, _operator(f"{route.definition.key!r} is disabled by its delivery policy"), route
        )
    failure = Failure(ErrorClass.VALIDATION, str(error))
    return Rejected(index, failure, route, dead_letter=is_dead_lettered(record, route, router))


def _operator(message: str) -> Failure:
    return Failure(ErrorClass.VALIDATION, message, Disposition.OPERATOR)


def is_dead_lettered(record: StagedRecord, route: Route | None, router: Router) -> bool:
    """Whether the effective policy wants a poison record dead-lettered; a policy nobody can read does."""
    override = dict(record.headers).get(staging.POLICY)
    try:
        return route is None or router.policy(route, override).dlq == "on_routable_failure"
    except PolicyError:
        return True
