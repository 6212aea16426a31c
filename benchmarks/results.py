"""What a run of the benchmark found, and the ratios it is judged by. Pure.

Owns: samples, medians, the table of bars and goals. Must not know: how anything was measured, files.

Only ratios of one run are quoted: contenders take turns in it, so that what slows the machine slows them all.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

__all__ = ["RATIOS", "Ratio", "Results", "Samples", "Spread", "spread"]


class Spread(NamedTuple):
    """Several rounds: the median, the least, the most."""

    median: float
    least: float
    most: float


def spread(values: list[float]) -> Spread:
    """Of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


@dataclass(slots=True)
class Samples:
    """One contender: what it is, how many events a round had, and each round's figures."""

    title: str
    events: int
    cpu_us: list[float] = field(default_factory=list)
    """CPU microseconds an event, user and system, of the whole process tree."""
    per_s: list[float] = field(default_factory=list)
    """Events a second of wall time."""


@dataclass(slots=True)
class Results:
    """One run. `absent` says of what could not be measured why; `lone` are microseconds of single calls."""

    machine: dict[str, str] = field(default_factory=dict)
    relays: dict[str, Samples] = field(default_factory=dict)
    emits: dict[str, Samples] = field(default_factory=dict)
    outboxes: dict[str, Samples] = field(default_factory=dict)
    lone: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    latency: list[dict[str, float]] = field(default_factory=list)
    half_load: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    """At half of the worker's maximum in that round: what the worker, and the floor, made of it."""
    absent: dict[str, str] = field(default_factory=dict)

    def cpu(self, way: str) -> float:
        """The median of a contender's CPU an event. Raises `KeyError` where it is absent."""
        return statistics.median(self._samples(way).cpu_us)

    def rate(self, way: str) -> float:
        """The median of a contender's events a second. Raises `KeyError` where it is absent."""
        return statistics.median(self._samples(way).per_s)

    def p50(self, way: str) -> float:
        """The median, over rounds, of a single call's median."""
        return statistics.median(self.lone[way]["p50"])

    def half_load_p99(self, way: str) -> float:
        """The median, over rounds, of the 99th percentile in ms from `stage()` to the target, at half the worker's
        maximum in that round."""
        return statistics.median(one["p99_ms"] for one in self.half_load[way])

    def ratios(self) -> dict[str, float]:
        """Every ratio that can be told from this run, by its name."""
        found = {}
        for ratio in RATIOS:
            try:
                found[ratio.name] = ratio.of(self)
            except (KeyError, ValueError, statistics.StatisticsError):
                continue  # a contender is absent, or this run did not ask
        return found

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self) | {"ratios": self.ratios()}

    def _samples(self, way: str) -> Samples:
        everything: Mapping[str, Samples] = self.relays | self.emits | self.outboxes
        return everything[way]


@dataclass(frozen=True, slots=True)
class Ratio:
    """A figure of merit: which way is better, and what it must and what it should reach; None: it is reported."""

    name: str
    better: Literal["less", "more"]
    of: Callable[[Results], float]
    bar: float | None
    goal: float | None

    def is_worse(self, value: float, than: float, by: float) -> bool:
        """Whether `value` is worse than another by more than a share of it."""
        return value > than * (1 + by) if self.better == "less" else value < than / (1 + by)

    def reaches(self, value: float, limit: float) -> bool:
        """Whether a value is as good as a limit."""
        return value <= limit if self.better == "less" else value >= limit


RATIOS = (
    Ratio("worker CPU/event ÷ floor", "less", lambda r: r.cpu("worker") / r.cpu("floor"), 1.8, 1.3),
    Ratio("naive Faust CPU/event ÷ worker", "more", lambda r: r.cpu("naive") / r.cpu("worker"), 12, 25),
    Ratio(
        "worker ÷ naive Faust, wall events/s, one process",
        "more",
        lambda r: r.rate("worker") / r.rate("naive"),
        10,
        25,
    ),
    Ratio(
        "Kafka Connect CPU/event ÷ worker (whole JVM)",
        "more",
        lambda r: r.cpu("connect") / r.cpu("worker"),
        None,
        2,
    ),
    Ratio(
        "`stage()`, 64 callers: events/s ÷ plain aiokafka `send()`",
        "more",
        lambda r: r.rate("stage") / r.rate("aiokafka"),
        1,
        2,
    ),
    Ratio(
        "`stage()`, 64 callers: CPU/event ÷ plain aiokafka `send()`",
        "less",
        lambda r: r.cpu("stage") / r.cpu("aiokafka"),
        None,
        None,
    ),
    Ratio(
        "`stage()` CPU/event ÷ confluent-kafka",
        "less",
        lambda r: r.cpu("stage") / r.cpu("confluent"),
        None,
        None,
    ),
    Ratio(
        "`stage()` CPU/event ÷ franz-go `ProduceSync`",
        "less",
        lambda r: r.cpu("stage") / r.cpu("franz-go"),
        None,
        None,
    ),
    Ratio(
        "`stage()` CPU/event ÷ lib-streaming `Emit`",
        "less",
        lambda r: r.cpu("stage") / r.cpu("lib-streaming"),
        None,
        1,
    ),
    Ratio(
        "lone `stage()` p50 ÷ aiokafka `send_and_wait` (linger 0)",
        "less",
        lambda r: r.p50("stage") / r.p50("send_and_wait"),
        1.2,
        1.05,
    ),
    Ratio(
        "`stage_blocking()` p50 ÷ `stage()` p50",
        "less",
        lambda r: r.p50("stage_blocking") / r.p50("stage"),
        1.5,
        1.2,
    ),
    Ratio(
        "outbox, 64 callers: CPU/event ÷ bare group commit of prebuilt rows",
        "less",
        lambda r: r.cpu("outbox") / r.cpu("group-commit"),
        3,
        2,
    ),
    Ratio(
        "`stage()` to target, p99 in ms at half the worker's maximum",
        "less",
        lambda r: r.half_load_p99("worker"),
        100,
        30,
    ),
    Ratio("the same by the floor, at that load", "less", lambda r: r.half_load_p99("floor"), None, None),
)
