"""The rules that need more than one definition, or the namespace, to be judged (rules D1 to D4).

Owns: all that makes a set of sound definitions a sound catalog. A pure function over plain data that
finds everything, not just the first. Must not know: where definitions are read from.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import PydanticUserError

from catalog.definitions import EventDefinition
from catalog.errors import PayloadRefused, PolicyError, Problem, did_you_mean, similar
from catalog.names import (
    DLQ_SUFFIX,
    OwnTopics,
    collision_name,
    dlq_of,
    namespace_problem,
    topic_problem,
)
from catalog.payloads import validator_of
from catalog.policies import PolicyOverride, merge

POLICIES_VARIABLE: Final = "STREAMING_EVENT_POLICIES"


@dataclass(frozen=True, slots=True)
class Entry:
    """A definition and the file it comes from."""

    file: str
    definition: EventDefinition

    def problem(self, rule: str, message: str) -> Problem:
        """Return a problem at this entry."""
        return Problem(self.file, self.definition.key, rule, message)


def check(entries: Sequence[Entry], namespace: str, policies: Mapping[str, PolicyOverride]) -> list[Problem]:
    """Return every problem of these definitions together, in the namespace, under these policies.

    Empty where the catalog is sound. Compiles validators and tries every example; does no I/O.
    """
    problem = namespace_problem(namespace)
    if problem:
        return [Problem("", "", "N4", problem)]
    return [
        *_duplicates(entries),
        *_topics(entries, OwnTopics(namespace)),
        *_shared_topics(entries, namespace),
        *_colliding_topics(entries, OwnTopics(namespace)),
        *_policies(entries, policies),
        *(found for entry in entries for found in _examples(entry)),
    ]


def _duplicates(entries: Sequence[Entry]) -> Iterator[Problem]:
    keys: dict[str, Entry] = {}
    kinds: dict[tuple[str, str, str], Entry] = {}
    for entry in entries:
        item = entry.definition
        kind = (item.resource_type, item.event_type, item.schema_version)
        twin = keys.setdefault(item.key, entry)
        if twin is not entry:
            yield entry.problem("D2", f"the key is taken by {twin.file}")
            continue
        twin = kinds.setdefault(kind, entry)
        if twin is not entry:
            yield entry.problem(
                "D2",
                f"resource_type, event_type and schema_version ({', '.join(kind)}) are those of "
                f"{twin.definition.key!r} in {twin.file}",
            )


def _topics(entries: Sequence[Entry], own: OwnTopics) -> Iterator[Problem]:
    for entry in entries:
        topic = entry.definition.topic_in(own.namespace)
        problem = topic_problem(topic) or topic_problem(dlq_of(topic))
        if problem:
            yield entry.problem("D2", problem)
        elif own.is_own(topic):
            yield entry.problem("D2", f"the topic {topic!r} is one of the pipeline's own (N4)")
        elif topic.endswith(DLQ_SUFFIX):
            yield entry.problem("D2", f"the topic {topic!r} ends in {DLQ_SUFFIX}, as dead letters do (N4)")


def _shared_topics(entries: Sequence[Entry], namespace: str) -> Iterator[Problem]:
    users: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        users[entry.definition.topic_in(namespace)].append(entry)
    for topic, sharing in users.items():
        for entry in sharing:
            other = next((e for e in sharing if e.definition.key != entry.definition.key), None)
            if other is not None and entry.definition.topic is None:
                yield entry.problem(
                    "D2",
                    f"the topic {topic!r} is also that of {other.definition.key!r}; "
                    f"to share it on purpose, write topic = {topic!r} in both",
                )


def _colliding_topics(entries: Sequence[Entry], own: OwnTopics) -> Iterator[Problem]:
    names = {collision_name(topic): topic for topic in own.all}
    for entry in entries:
        topic = entry.definition.topic_in(own.namespace)
        for name in (topic, dlq_of(topic)):
            other = names.setdefault(collision_name(name), name)
            if other != name:
                yield entry.problem(
                    "D2", f"Kafka cannot hold both {name!r} and {other!r}: '.' and '_' collide"
                )
                break


def _policies(entries: Sequence[Entry], policies: Mapping[str, PolicyOverride]) -> Iterator[Problem]:
    known = {entry.definition.key for entry in entries}
    for key in sorted(policies.keys() - known):
        hint = did_you_mean(similar(key, known))
        yield Problem(POLICIES_VARIABLE, key, "D5", f"the catalog has no such definition{hint}")
    for entry in entries:
        override = policies.get(entry.definition.key)
        try:
            merge(entry.definition.policy, override or PolicyOverride()).check(entry.definition.key)
        except PolicyError as error:
            file = entry.file if override is None else f"{entry.file} with {POLICIES_VARIABLE}"
            yield Problem(file, entry.definition.key, "D3", f"policy: {error.reason}")


def _examples(entry: Entry) -> Iterator[Problem]:
    try:
        validator = validator_of(entry.definition)
    except PydanticUserError as error:
        yield entry.problem("D1", f"payload: the model has no JSON Schema: {error.message}")
        return
    for number, example in enumerate(entry.definition.examples, start=1):
        try:
            validator.check(json.dumps(example, allow_nan=False).encode())
        except PayloadRefused as error:
            yield entry.problem("D1", f"example {number}: {error.reason}")
        except ValueError:
            yield entry.problem("D1", f"example {number}: JSON has neither NaN nor Infinity")
