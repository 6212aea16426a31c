"""Topic names: where an event ends (rule T1), which topics are ours (rule N4), what Kafka allows.

Owns: every rule that turns a namespace or a definition into a name. Must not know: brokers, or
whether a topic exists. Loads nothing but the standard library (rule N3).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

DLQ_SUFFIX: Final = ".dlq"
TOPIC_CHARS: Final = 249
"""Longest topic name that Kafka takes, in characters."""
NAMESPACE_CHARS: Final = 100
"""Longest namespace: it leaves room for what Faust and we append to it."""

_LEGAL: Final = re.compile(r"[a-zA-Z0-9._-]+")
_NAMESPACE: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]*")


@dataclass(frozen=True, slots=True)
class OwnTopics:
    """The names that one namespace takes for itself (rule N4)."""

    namespace: str

    @property
    def staging(self) -> str:
        """The topic that services write to."""
        return f"{self.namespace}.staging"

    @property
    def staging_dlq(self) -> str:
        """Dead letters of records that have no target (rule Q1)."""
        return f"{self.staging}{DLQ_SUFFIX}"

    @property
    def parked(self) -> str:
        """Events that wait, in order, until their target is well again."""
        return f"{self.namespace}.parked"

    @property
    def parked_cursors(self) -> str:
        """Compacted: how far what is parked has been drained."""
        return f"{self.parked}.cursors"

    @property
    def dlq_index(self) -> str:
        """One small record for each dead letter."""
        return f"{self.namespace}.dlq.index"

    @property
    def dlq_state(self) -> str:
        """Compacted: which dead letters were redriven or discarded (rule Q5)."""
        return f"{self.namespace}.dlq.state"

    @property
    def jobs(self) -> str:
        """Redrive jobs."""
        return f"{self.namespace}.jobs"

    @property
    def audit(self) -> str:
        """Who changed what, and what was skipped (rules T6, O3)."""
        return f"{self.namespace}.audit"

    @property
    def group(self) -> str:
        """The worker's consumer group, and the prefix of the topics that Faust makes for it."""
        return f"{self.namespace}-pipeline"

    @property
    def all(self) -> tuple[str, ...]:
        """Every topic of ours that has a fixed name, sorted."""
        return tuple(
            sorted(
                (
                    self.staging,
                    self.staging_dlq,
                    self.parked,
                    self.parked_cursors,
                    self.dlq_index,
                    self.dlq_state,
                    self.jobs,
                    self.audit,
                )
            )
        )

    def is_own(self, topic: str) -> bool:
        """Tell whether `topic` is one of these, or one that Faust makes for the group."""
        return topic in self.all or topic.startswith(self.group)


def target_topic(
    namespace: str, resource_type: str, event_type: str, schema_version: str, override: str | None
) -> str:
    """Return the topic an event ends on (rule T1): `override`, or a name made of the others.

    `schema_version` is semver 2.0; from major version 2 on, the name ends in `.v<major>`.
    """
    if override is not None:
        return override
    major = major_of(schema_version)
    return f"{namespace}.{resource_type}.{event_type}" + (f".v{major}" if major >= 2 else "")


def major_of(schema_version: str) -> int:
    """Return the major version of a semver 2.0 text."""
    return int(schema_version.partition(".")[0])


def dlq_of(target: str) -> str:
    """Return the dead-letter topic of a target topic (rule Q1)."""
    return f"{target}{DLQ_SUFFIX}"


def topic_problem(topic: str) -> str | None:
    """Return what Kafka has against this topic name, or None."""
    if topic in {".", ".."} or not _LEGAL.fullmatch(topic):
        return f"{topic!r} is not a Kafka topic name: use a-z, A-Z, 0-9, '.', '_' and '-'"
    if len(topic) > TOPIC_CHARS:
        return f"the topic name {topic!r} has {len(topic)} characters; Kafka takes {TOPIC_CHARS}"
    return None


def namespace_problem(namespace: str) -> str | None:
    """Return what is wrong with a namespace, the beginning of all our topic names, or None."""
    if len(namespace) > NAMESPACE_CHARS:
        return f"the namespace has {len(namespace)} characters; the limit is {NAMESPACE_CHARS}"
    if not _NAMESPACE.fullmatch(namespace):
        return (
            f"{namespace!r} is not a namespace: begin with a letter or digit, "
            "then use a-z, A-Z, 0-9, '.', '_' and '-'"
        )
    return None


def collision_name(topic: str) -> str:
    """Return what Kafka's metrics make of a topic name.

    A broker refuses to create a topic whose name differs from another's only in `.` and `_`.
    """
    return topic.replace(".", "_")
