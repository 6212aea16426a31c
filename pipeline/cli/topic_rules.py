"""Which topics the pipeline needs and what may be wrong with them, each with the way out (N4, Q1, S5). Pure.

Owns: the list and the rules. Must not know: how a topic is looked up, created or printed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from catalog import Catalog, OwnTopics
from catalog.names import dlq_of
from pipeline.kafka.topics import TopicSpec, TopicSpecs, TopicState

__all__ = ["Needed", "TopicProblem", "needed_topics", "problems_of", "specs_to_create"]

Servers = Literal["BROKERS", "TARGET_BROKERS"]


@dataclass(frozen=True, slots=True)
class Needed:
    """A topic that must exist, and as what it is created."""

    spec: TopicSpec
    servers: Servers
    """The setting that says on which cluster (N4)."""
    like: str | None = None
    """The topic whose partition count it is created with."""
    must_match: bool = False
    """Whether it must have that count, or just gets it."""

    @property
    def name(self) -> str:
        """The topic's name."""
        return self.spec.name


@dataclass(frozen=True, slots=True)
class TopicProblem:
    """One thing that is wrong with a topic, and what to do about it."""

    kind: Literal["missing", "partitions", "size"]
    message: str
    way_out: str


def needed_topics(catalog: Catalog, own: OwnTopics, specs: TopicSpecs) -> list[Needed]:
    """Staging, its dead letters, audit, those of redrives, what is parked, then each target with its dead letters."""
    needed = [
        Needed(specs.staging(own.staging), "BROKERS"),
        Needed(specs.kept(own.staging_dlq), "BROKERS", like=own.staging, must_match=True),
        Needed(specs.kept(own.audit), "BROKERS", like=own.staging),
        *(Needed(spec, "BROKERS", like=own.staging) for spec in (specs.dlq_index(own), specs.dlq_state(own))),
        Needed(specs.jobs(own), "BROKERS"),
        Needed(specs.kept(own.parked), "BROKERS", like=own.staging, must_match=True),
        Needed(specs.cursors(own.parked_cursors), "BROKERS", like=own.staging, must_match=True),
    ]
    for target in catalog.topics:
        needed.append(Needed(specs.target(target), "TARGET_BROKERS"))
        needed.append(Needed(specs.kept(dlq_of(target)), "BROKERS", like=target, must_match=True))
    return needed


def specs_to_create(needed: Iterable[Needed], states: Mapping[str, TopicState]) -> dict[str, TopicSpec]:
    """The specs of those that are missing, by name, with the partition count they must be created with."""
    found = {}
    for item in needed:
        if item.name not in states:
            model = states.get(item.like) if item.like is not None else None
            found[item.name] = replace(item.spec, partitions=model.partitions) if model else item.spec
    return found


def problems_of(
    needed: Needed, states: Mapping[str, TopicState], staging: str, partitions: int
) -> list[TopicProblem]:
    """What is wrong with one topic; `partitions` is STREAMING_TOPIC_PARTITIONS, which staging must have."""
    state = states.get(needed.name)
    if state is None:
        return [TopicProblem("missing", "missing", "run `faust -A pipeline topics create`")]
    return [*_count(needed, state, states, staging, partitions), *_size(needed, state)]


def _count(
    needed: Needed, state: TopicState, states: Mapping[str, TopicState], staging: str, partitions: int
) -> Iterator[TopicProblem]:
    model = states.get(needed.like) if needed.must_match and needed.like is not None else None
    if needed.name == staging and state.partitions != partitions:
        yield TopicProblem(
            "partitions",
            f"has {state.partitions} partitions, STREAMING_TOPIC_PARTITIONS says {partitions}, and staging "
            "keeps its count for its namespace's life",
            f"set STREAMING_TOPIC_PARTITIONS={state.partitions}; or, for another count, stop staging, let the "
            "workers deliver all, and go on under another STREAMING_NAMESPACE",
        )
    elif model is not None and state.partitions < model.partitions:
        yield TopicProblem(
            "partitions",
            f"has {state.partitions} partitions, {needed.like} has {model.partitions}",
            f"kafka-topics.sh --alter --topic {needed.name} --partitions {model.partitions}",
        )
    elif model is not None and state.partitions > model.partitions:
        yield TopicProblem(
            "partitions",
            f"has {state.partitions} partitions, {needed.like} has {model.partitions}, and a topic cannot shrink",
            "deal with what is on it, delete it, then run `faust -A pipeline topics create`",
        )


def _size(needed: Needed, state: TopicState) -> Iterator[TopicProblem]:
    least = int(needed.spec.config["max.message.bytes"])
    if state.max_message_bytes < least:
        yield TopicProblem(
            "size",
            f"max.message.bytes is {state.max_message_bytes}, less than {least}",
            f"kafka-configs.sh --alter --entity-type topics --entity-name {needed.name} --add-config "
            f"max.message.bytes={least}; or lower STREAMING_MAX_RECORD_BYTES",
        )
