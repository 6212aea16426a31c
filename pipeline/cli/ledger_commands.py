"""`faust -A pipeline ledger verify`: is everything that was staged where it belongs? (O2, T5, T6).

Owns: the command and its two forms of answer. Must not know: how anything is found out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict

import click
from aiokafka.errors import KafkaError
from faust.cli import option

from pipeline.application import Application
from pipeline.cli.command import Report, Subcommand, add_group, table
from pipeline.errors import StagepostError
from pipeline.kafka.connection import staging_cluster, target_cluster
from pipeline.ledger.findings import At, Ledger, Name, Spot
from pipeline.ledger.verify import DEFAULT_LIMIT
from pipeline.ledger.verify import verify as verify_ledger

__all__ = ["LedgerUnread", "register", "verify_report"]

_LABELS = {
    "staged": "staging records judged",
    "delivered": "delivered",
    "dead_lettered": "dead-lettered",
    "skipped": "skipped, with an audit record",
    "parked": "parked, waiting for their target",
    "pending": "pending: not committed by any worker yet",
    "staged_again": "staged again (retry, outbox, redrive)",
    "missing": "missing",
    "double": "double",
    "out_of_order": "out of order",
    "foreign": "on targets, but not on staging (deleted there, or foreign)",
    "unjudged": "not judged: their target has deleted what is as old",
}


class LedgerUnread(StagepostError):
    """The ledger could not be read to its end, so nothing is known."""

    def __init__(self, error: Exception) -> None:
        self.reason = str(error) or type(error).__name__
        super().__init__(
            f"cannot be judged: {self.reason}; check STREAMING_BROKERS and STREAMING_TARGET_BROKERS, that this client "
            "may read and describe topics and groups, and that the folder for temporary files has room"
        )


def register(application: Application) -> None:
    """Put the command on Faust's command line."""
    add = add_group(application, "ledger", "Account for everything that was staged.")
    add(
        verify,
        option(
            "--limit",
            type=click.IntRange(min=0),
            default=DEFAULT_LIMIT,
            show_default=True,
            help="How many of each kind to name; counts are always complete.",
        ),
    )


async def verify(self: Subcommand, *, limit: int) -> Report:
    """Name every staged event that is missing, double or out of order.

    Reads staging, targets, dead letters, parked and audit records back; changes nothing, and may run beside
    workers. What staging has deleted cannot be judged. Exit status 0 only where nothing is missing and
    nothing out of order; what comes double is reported.
    """
    settings = self.application.settings
    own, targets = staging_cluster(settings), target_cluster(settings)
    try:
        ledger = await verify_ledger(
            own, targets, self.application.catalog, limit=limit, progress=self.progress
        )
    except (KafkaError, OSError) as error:
        raise LedgerUnread(error) from error
    return verify_report(self.application.topics.staging, ledger)


def verify_report(topic: str, ledger: Ledger) -> Report:
    """The answer; `topic` is the staging topic."""
    findings = ledger.findings
    document = {
        "ok": findings.sound,
        "staging": [
            {"topic": topic, "partition": partition, **judged._asdict()}
            for partition, judged in sorted(ledger.staging.items())
        ],
        "counts": asdict(findings.counts),
        "missing": [_described(topic, at, ledger.names) for at in findings.missing],
        "double": [
            {
                **_described(topic, double.at, ledger.names),
                "ends": [end._asdict() for end in double.ends],
            }
            for double in findings.double
        ],
        "out_of_order": [
            {
                **_described(topic, disorder.at, ledger.names),
                "came": disorder.came._asdict(),
                "after": _described(topic, disorder.after, ledger.names),
            }
            for disorder in findings.out_of_order
        ],
    }
    return Report(document, "\n".join(_lines(ledger)), findings.sound)


def _described(topic: str, at: At, names: dict[At, Name]) -> dict[str, object]:
    return {**names[at]._asdict(), "topic": topic, "partition": at.partition, "offset": at.offset}


def _lines(ledger: Ledger) -> Iterator[str]:
    findings, counts = ledger.findings, asdict(ledger.findings.counts)
    ranges = [(partition, *judged) for partition, judged in sorted(ledger.staging.items())]
    yield table(("STAGING", "FROM", "COMMITTED", "TO"), ranges)
    yield ""
    width = max(map(len, _LABELS.values()))
    for name, label in _LABELS.items():
        yield f"{label.ljust(width)}  {counts[name]:>12,}"
    yield from _table("MISSING", ((*_cells(at, ledger.names),) for at in findings.missing), counts["missing"])
    yield from _table(
        "DOUBLE",
        ((*_cells(one.at, ledger.names), " ".join(map(_place, one.ends))) for one in findings.double),
        counts["double"],
        "ENDS",
    )
    late = findings.out_of_order
    yield from _table(
        "OUT OF ORDER",
        ((*_cells(one.at, ledger.names), f"{_place(one.came)}, after {_at(one.after)}") for one in late),
        counts["out_of_order"],
        "CAME",
    )


def _table(title: str, rows: Iterable[tuple[object, ...]], total: int, *more: str) -> Iterator[str]:
    named = list(rows)
    if total:
        yield ""
        yield table((title, "STAGED AT", "SOURCE", "DEFINITION", "KEY", *more), named)


def _cells(at: At, names: dict[At, Name]) -> tuple[str, ...]:
    name = names[at]
    return name.id, _at(at), name.source, name.definition, name.key


def _at(at: At) -> str:
    return f"{at.partition}/{at.offset}"


def _place(spot: Spot) -> str:
    return f"{spot.topic}/{spot.partition}/{spot.offset}"
