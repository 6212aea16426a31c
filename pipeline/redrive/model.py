"""What the index answers: letters, groups, counts, as plain frozen data.

Owns: these types. Must not know: where any of it is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.errors import StagepostError
from pipeline.record import RawHeader
from pipeline.redrive.selection import LetterState, Selection

__all__ = [
    "Bar",
    "Coordinates",
    "FullRecord",
    "Group",
    "Letter",
    "LetterGone",
    "LetterPage",
    "NoSuchLetter",
    "Overview",
    "Preview",
    "TopicSummary",
]


class NoSuchLetter(StagepostError):
    """The index knows no dead letter at these coordinates."""

    def __init__(self, topic: str, partition: int, offset: int) -> None:
        self.coordinates = (topic, partition, offset)
        super().__init__(
            f"no dead letter is known at {topic}/{partition}/{offset}: look for it with `dlq list`; one that "
            "another program wrote is known after `dlq scan`, one that its topic has deleted no more"
        )


class LetterGone(StagepostError):
    """The index knows the dead letter, but its topic does not hold it any more."""

    def __init__(self, topic: str, partition: int, offset: int) -> None:
        self.coordinates = (topic, partition, offset)
        super().__init__(f"{topic}/{partition}/{offset} has been deleted from its topic: discard it")


class Coordinates(NamedTuple):
    """Where a record is."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter as the index knows it. Texts are clean and cut; times are seconds since 1970."""

    topic: str
    partition: int
    offset: int
    state: LetterState
    error_class: str
    message: str
    """Without its variable parts."""
    fingerprint: str
    definition: str
    schema_version: str
    disposition: str
    tenant: str
    id: str
    source: str
    first_failure_at: float
    failed_at: float
    redrive_count: int
    size: int
    """Bytes of key, value and headers."""
    dialect: str
    """Who wrote it: `stagepost`, `lib-streaming`, `connect`, `spring`, or `unknown`."""
    source_topic: str
    """The target it was on its way to; of another program's, the topic it had been read from."""
    source_partition: int
    """Where it was before it failed: for ours in staging, else in `source_topic`; -1: not known."""
    source_offset: int


@dataclass(frozen=True, slots=True)
class LetterPage:
    """Letters, newest failure first. `cursor` continues behind them; None: there are no more."""

    letters: Sequence[Letter]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Group:
    """Failures of one kind on one topic."""

    topic: str
    fingerprint: str
    error_class: str
    message: str
    definition: str
    schema_version: str
    disposition: str
    count: int
    tenants: Sequence[str]
    """The tenants hit, those with most letters first, at most ten; the empty one stands for none."""
    tenant_count: int
    first_at: float
    last_at: float


@dataclass(frozen=True, slots=True)
class Groups:
    """Failures by kind: how many letters and kinds there are in all, and the kinds with most letters, those first."""

    count: int
    kinds: int
    largest: Sequence[Group]


@dataclass(frozen=True, slots=True)
class TopicSummary:
    """The dead letters of one topic. `by_class` counts the open ones; so do `oldest_at` and `newest_at`."""

    topic: str
    open: int
    redriven: int
    discarded: int
    per_minute: float
    """How many failed in the last five minutes, a minute."""
    by_class: Mapping[str, int]
    oldest_at: float | None
    newest_at: float | None


@dataclass(frozen=True, slots=True)
class Overview:
    """All topics with dead letters, those with most open ones first. `behind`: index records not read yet."""

    topics: Sequence[TopicSummary]
    behind: int

    @property
    def open(self) -> int:
        """All open dead letters."""
        return sum(topic.open for topic in self.topics)


@dataclass(frozen=True, slots=True)
class FullRecord:
    """One dead letter, and the record itself as it lies on its topic."""

    letter: Letter
    key: bytes | None
    value: bytes | None
    headers: Sequence[RawHeader]
    message: str
    """The message as it was written."""
    payload_omitted: bool


@dataclass(frozen=True, slots=True)
class Bar:
    """How many failed from a time on, until before another; the last bar of a histogram includes its end."""

    from_at: float
    until_at: float
    count: int


@dataclass(frozen=True, slots=True)
class Preview:
    """What a job with this selection would meet now. `too_often`: redriven `MAX_REDRIVES` times already, and so
    not again; `groups` are the largest of `kinds`; `histogram` is when they failed, in bars of equal width."""

    selection: Selection
    count: int
    too_often: int
    kinds: int
    groups: Sequence[Group]
    oldest_at: float | None
    newest_at: float | None
    histogram: Sequence[Bar] = ()
