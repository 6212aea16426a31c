"""Deciding: a batch of staging records in, the records to write out. Pure; the hot path of the worker.

Owns: catalog lookup, policy, framing, key and partition, who is rejected, what is parked.
Must not know: Kafka clients, Faust, time, what has been written before. Whatever it decides is data.

What it costs per event decides what the worker costs: a record is made as bytes (`pipeline.packing`), those of its
definition, key and source are looked up, no JSON is parsed for a record whose stager checked it against this very
catalog (`stage-catalog`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from pipeline import staging
from pipeline.checks import (
    Disabled,
    Limits,
    check_policy_and_source,
    check_sizes,
    check_texts,
    other_headers,
    passed_on,
)
from pipeline.dlq import Disposition, Failure
from pipeline.errors import ErrorClass, InvalidField, PayloadRefused, PolicyError, RecordTooLarge
from pipeline.packing import PACKED_OVERHEAD, VARINTS
from pipeline.packing import headers as packed_headers
from pipeline.park import NOTHING_DIVERTED, Diverted, definition_name, version_name
from pipeline.record import ReadRecord
from pipeline.routes import Route, Router

__all__ = ["Column", "Limits", "Plan", "Rejected", "is_dead_lettered", "plan"]

_REQUIRED = (staging.VERSION, staging.DEFINITION, staging.ID, staging.TIME, staging.SOURCE)


class Column:
    """What goes to one partition of one target, in order: packed records, and for each the index of its staging one."""

    __slots__ = ("records", "route", "size", "sources", "staged_at", "written_at")

    def __init__(self, route: Route, staged_at: bytes, written_at: int) -> None:
        self.route = route
        self.staged_at = staged_at
        """The stage-time of its first record; and the time of that staging record, in ms since 1970: kept here, for
        until the records end they have left the processor's caches."""
        self.written_at = written_at
        self.records: list[bytes] = []
        self.sources: list[int] = []
        self.size = 0
        """No less than the records take in a batch before compression, in bytes."""


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
    """The outcome: columns by (topic, partition); rejected records; indices of records to park, by the name they
    are parked under; and topics whose partition count is not known.

    Where `unknown_topics` is not empty the plan is incomplete: learn the counts and plan again.
    """

    __slots__ = ("columns", "parked", "rejected", "unknown_topics")

    def __init__(self) -> None:
        self.columns: dict[tuple[str, int], Column] = {}
        self.rejected: list[Rejected] = []
        self.parked: dict[str, list[int]] = {}
        self.unknown_topics: set[str] = set()


def plan(
    records: Sequence[ReadRecord],
    router: Router,
    partitions: Mapping[str, int],
    limits: Limits,
    diverted: Diverted = NOTHING_DIVERTED,
) -> Plan:
    """What is to be written for these staging records, in their order.

    In: records of one staging partition; the routes; the partition count of each topic known so far; what is
    diverted from this partition.
    Out: a `Plan` in which every record stands exactly once, in a column, among the rejected or the parked,
    unless its topic is unknown. Does no I/O, raises nothing for any record's content.
    """
    result = Plan()
    columns = result.columns
    route_of = _without(router, diverted.definitions) if diverted.definitions else router.route
    versions = staging.KNOWN_VERSIONS.difference(diverted.versions)
    tenants, subjects, sources = router.tenants, router.subjects, router.sources
    id_name, time_name, subject_name = router.packed_names
    fingerprint = router.fingerprint
    join, varints, no_value = b"".join, VARINTS, VARINTS[-1]
    for index, record in enumerate(records):
        headers, value = record.headers, record.value
        fields: dict[str, bytes] = dict(headers)  # type: ignore[arg-type]
        if None in fields.values():  # Kafka allows it; to us it says as much as no header
            fields = {name: value for name, value in headers if value is not None}
        get = fields.get
        try:
            route = route_of(fields[staging.DEFINITION])
            event_id, time, source = fields[staging.ID], fields[staging.TIME], fields[staging.SOURCE]
            if route is None or fields[staging.VERSION] not in versions:
                raise KeyError  # noqa: TRY301 -- the same exit as a missing header, without a call per record
            tenant, subject, seal = get(staging.TENANT), get(staging.SUBJECT), get(staging.CATALOG)
            packed_source = sources.get(source)
            if route.guarded or staging.POLICY in fields:
                check_policy_and_source(fields, source, route, router)
            check_texts(event_id, time, subject)
            if tenant:
                key = tenants.get(tenant)
            elif subject:
                key = subjects.get(subject)
            else:
                key = router.key_of_id(event_id)
            if route.system_key is not None:
                key = route.system_key
            known = 5 + (tenant is not None) + (subject is not None) + (seal is not None)
            others = (
                other_headers(headers, known + (staging.POLICY in fields)) if len(headers) > known else ()
            )
            sealed = seal == fingerprint
            check_sizes(record, others, limits, sealed=sealed)
            if not sealed:
                route.check_body(value)
            header_count = route.header_count + key.header_count
            behind = key.packed
            if subject:
                header_count += 1
                behind += subject_name + varints[len(subject)] + subject
            if others:
                more = passed_on(others)
                header_count += len(more)
                behind += packed_headers(more)
        except KeyError:
            name = _unknown_name(fields, versions, route_of, diverted)
            if name is not None:
                result.parked.setdefault(name, []).append(index)
            else:
                result.rejected.append(_missing_or_unknown(index, record, fields, router))
            continue
        except (InvalidField, PayloadRefused, PolicyError, RecordTooLarge, Disabled) as error:
            result.rejected.append(
                _rejected(index, error, record, route_of(fields[staging.DEFINITION]), router)
            )
            continue
        count = partitions.get(route.topic)
        if count is None:
            if route.topic in diverted.targets:
                result.parked.setdefault(route.topic, []).append(index)
            else:
                result.unknown_topics.add(route.topic)
            continue
        at = (route.topic, key.hash % count)
        column = columns.get(at)
        if column is None:
            column = columns[at] = Column(route, time, record.timestamp)
        packed = join(
            (
                key.packed_data,
                no_value if value is None else varints[len(value)],
                value or b"",
                varints[header_count],
                route.packed,
                packed_source,
                id_name,
                varints[len(event_id)],
                event_id,
                time_name,
                varints[len(time)],
                time,
                behind,
            )
        )
        column.records.append(packed)
        column.size += len(packed) + PACKED_OVERHEAD
        column.sources.append(index)
    if diverted.targets:
        _park_columns(result, diverted.targets)
    return result


def _park_columns(result: Plan, targets: Collection[str]) -> None:
    """Whole columns are parked, so that the way of a healthy target's record is as short as ever."""
    for at in [at for at in result.columns if at[0] in targets]:
        result.parked.setdefault(at[0], []).extend(result.columns.pop(at).sources)
    for indices in result.parked.values():
        indices.sort()


def _without(router: Router, definitions: Collection[bytes]) -> Callable[[bytes], Route | None]:
    """The routes without definitions of which events are still parked as unknown: theirs follow behind."""
    return lambda key: None if key in definitions else router.route(key)


def _unknown_name(
    fields: Mapping[str, bytes],
    versions: Collection[bytes],
    route_of: Callable[[bytes], Route | None],
    diverted: Diverted,
) -> str | None:
    """What a record is parked under that this worker does not know yet (C3); None: it is rejected."""
    version, key = fields.get(staging.VERSION), fields.get(staging.DEFINITION)
    if version is not None and version not in versions:
        return version_name(version) if diverted.parks_unknown or version in diverted.versions else None
    if all(name in fields for name in _REQUIRED) and key is not None and route_of(key) is None:
        return definition_name(key) if diverted.parks_unknown or key in diverted.definitions else None
    return None


def _missing_or_unknown(
    index: int, record: ReadRecord, fields: Mapping[str, bytes], router: Router
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
    index: int, error: Exception, record: ReadRecord, route: Route | None, router: Router
) -> Rejected:
    if route is not None and isinstance(error, Disabled):
        return Rejected(
            index, _operator(f"{route.definition.key!r} is disabled by its delivery policy"), route
        )
    failure = Failure(ErrorClass.VALIDATION, str(error))
    return Rejected(index, failure, route, dead_letter=is_dead_lettered(record, route, router))


def _operator(message: str) -> Failure:
    return Failure(ErrorClass.VALIDATION, message, Disposition.OPERATOR)


def is_dead_lettered(record: ReadRecord, route: Route | None, router: Router) -> bool:
    """Whether the effective policy wants a poison record dead-lettered; a policy nobody can read does."""
    override = dict(record.headers).get(staging.POLICY)
    try:
        return route is None or router.policy(route, override).dlq == "on_routable_failure"
    except PolicyError:
        return True
