"""`faust -A pipeline topics create|check`: the topics the pipeline needs, on both clusters (O2, N4).

Owns: the two commands and their two forms of answer. Must not know: which topics are needed, or what is wrong
with one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict

from aiokafka.errors import KafkaError

from pipeline.application import Application
from pipeline.cli.command import Report, Subcommand, add_group, table
from pipeline.cli.topic_rules import (
    Needed,
    Servers,
    TopicProblem,
    needed_topics,
    problems_of,
    specs_to_create,
)
from pipeline.clock import SYSTEM_CLOCK
from pipeline.errors import MissingTopics, StagepostError
from pipeline.kafka.connection import Connection, staging_cluster, target_cluster
from pipeline.kafka.topics import TopicSpec, TopicState, describe, missing
from pipeline.kafka.topics import create as create_topics
from pipeline.settings import Settings

__all__ = ["NoAnswer", "check_report", "create_report", "register"]

_BATCH = 20
_VISIBLE_S = 10.0
_PAUSE_S = 0.1


class NoAnswer(StagepostError):
    """A cluster does not answer, or refuses to."""

    def __init__(self, servers: Servers, addresses: Sequence[str], error: Exception) -> None:
        self.servers = servers
        self.addresses = tuple(addresses)
        reason = str(error) or type(error).__name__
        super().__init__(
            f"STREAMING_{servers} ({', '.join(addresses)}): {reason}; check the address, that the brokers run, "
            "and that they let this client describe and create topics"
        )


def register(application: Application) -> None:
    """Put the commands on Faust's command line."""
    add = add_group(application, "topics", "Check and create the topics the pipeline needs.")
    add(check)
    add(create)


async def check(self: Subcommand) -> Report:
    """Say what is wrong with the topics.

    Looks at staging, audit, targets and dead-letter topics: whether they exist, partition counts, record
    sizes. Changes nothing. Each problem comes with the way out; exit status 1 where there is one.
    """
    application = self.application
    needed = _needed(application)
    states = await _states(application.settings, needed)
    return check_report(needed, states, application.topics.staging, application.settings.topic_partitions)


def check_report(
    needed: Sequence[Needed], states: Mapping[str, TopicState], staging: str, partitions: int
) -> Report:
    """The answer of `topics check`."""
    topics = []
    rows: list[tuple[object, ...]] = []
    wrong = 0
    for item in needed:
        problems = problems_of(item, states, staging, partitions)
        wrong += bool(problems)
        topics.append(_described(item, states.get(item.name), problems))
        rows += _rows(item.name, states.get(item.name), problems)
    summary = f"{len(needed)} topics, {wrong} of them not as they must be"
    text = f"{table(('TOPIC', 'PARTITIONS', 'STATE', 'WAY OUT'), rows)}\n\n{summary}"
    return Report({"ok": not wrong, "topics": topics}, text, not wrong)


def _described(item: Needed, state: TopicState | None, problems: Sequence[TopicProblem]) -> dict[str, object]:
    return {
        "topic": item.name,
        "cluster": item.servers,
        "partitions": state.partitions if state else None,
        "max_message_bytes": state.max_message_bytes if state else None,
        "problems": [asdict(problem) for problem in problems],
    }


def _rows(name: str, state: TopicState | None, problems: Sequence[TopicProblem]) -> list[tuple[object, ...]]:
    count = state.partitions if state else None
    return [(name, count, problem.message, problem.way_out) for problem in problems] or [
        (name, count, "ok", "")
    ]


async def create(self: Subcommand) -> Report:
    """Create the topics that are missing.

    Never changes one that exists. Exit status 0 once all exist; `topics check` says whether those that
    existed are as they must be.
    """
    settings = self.application.settings
    needed = _needed(self.application)
    specs = specs_to_create(needed, await _states(settings, needed))
    refused: list[str] = []
    for servers, names in _by_cluster(needed).items():
        wanted = [specs[name] for name in names if name in specs]
        for batch in (wanted[at : at + _BATCH] for at in range(0, len(wanted), _BATCH)):
            self.progress("\n".join(f"creating {spec.name}" for spec in batch))
            refused += await _create(settings, servers, batch)
    absent = await _absent(settings, [item for item in needed if item.name in specs], len(refused))
    return create_report(needed, specs, absent, refused)


def create_report(
    needed: Sequence[Needed], specs: Mapping[str, TopicSpec], absent: Sequence[str], refused: Sequence[str]
) -> Report:
    """The answer of `topics create`; `specs` are those that were missing, `absent` those that still are."""
    created = [name for name in specs if name not in absent]
    existed = [item.name for item in needed if item.name not in specs]
    document = {
        "ok": not absent,
        "created": created,
        "existed": existed,
        "missing": [*absent],
        "refused": [*refused],
    }
    rows = [
        (name, spec.partitions, "missing" if name in absent else "created") for name, spec in specs.items()
    ]
    summary = f"{len(created)} created, {len(existed)} existed already, {len(absent)} missing"
    lines = [table(("TOPIC", "PARTITIONS", "STATE"), rows), ""] if rows else []
    return Report(document, "\n".join([*lines, *refused, summary]), not absent)


# --- the clusters


def _needed(application: Application) -> list[Needed]:
    return needed_topics(application.catalog, application.topics, application.specs)


def _by_cluster(needed: Sequence[Needed]) -> dict[Servers, list[str]]:
    names: dict[Servers, list[str]] = {"BROKERS": [], "TARGET_BROKERS": []}
    for item in needed:
        names[item.servers].append(item.name)
    return names


async def _states(settings: Settings, needed: Sequence[Needed]) -> dict[str, TopicState]:
    states: dict[str, TopicState] = {}
    for servers, names in _by_cluster(needed).items():
        with _asking(settings, servers) as connection:
            states |= await describe(connection, names)
    return states


async def _create(settings: Settings, servers: Servers, specs: Sequence[TopicSpec]) -> tuple[str, ...]:
    """What the brokers refused to create, and why."""
    try:
        with _asking(settings, servers) as connection:
            await create_topics(connection, specs, settings.topic_replication)
    except MissingTopics as error:
        return error.problems
    return ()


async def _absent(settings: Settings, created: Sequence[Needed], refused: int) -> list[str]:
    """Those that do not exist; a new topic takes a moment to reach every broker's metadata."""
    deadline = SYSTEM_CLOCK.monotonic() + _VISIBLE_S
    while True:
        absent: list[str] = []
        for servers, names in _by_cluster(created).items():
            with _asking(settings, servers) as connection:
                absent += await missing(connection, names) if names else []
        if len(absent) <= refused or SYSTEM_CLOCK.monotonic() >= deadline:
            return absent
        await asyncio.sleep(_PAUSE_S)


@contextmanager
def _asking(settings: Settings, servers: Servers) -> Iterator[Connection]:
    connection = staging_cluster(settings) if servers == "BROKERS" else target_cluster(settings)
    try:
        yield connection
    except (KafkaError, OSError, TimeoutError) as error:
        raise NoAnswer(servers, connection.servers, error) from error
