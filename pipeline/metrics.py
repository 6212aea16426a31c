"""What is measured: the names of all metrics in one place, and the numbers, as plain Python (O4).

Owns: names, labels, buckets, counting. Must not know: Prometheus, who asks, where anything is counted. No label
names a tenant: their number has no bound. Not safe for several threads; each process counts on one event loop.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["ALL", "Histogram", "Metric", "Metrics", "Sample"]

Labels = tuple[str, ...]


@dataclass(
    frozen=True, slots=True, eq=False
)  # each is one of a kind; hashing all fields for each event costs
class Metric:
    """A metric. `name` is the whole name that is exported, of a counter with its `_total`."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: Labels = ()
    buckets: tuple[float, ...] = ()
    """Upper bounds in seconds, ascending, without infinity."""


_CALL = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
_WAY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 3_600.0)

# --- in a service
STAGED = Metric(
    "stagepost_staged_total", "counter", "Events made durable, by where: topic or outbox.", ("via",)
)
STAGE_FAILED = Metric(
    "stagepost_stage_failed_total",
    "counter",
    "Calls of stage() that raised after the checks.",
    ("error_class",),
)
STAGE_SECONDS = Metric(
    "stagepost_stage_seconds", "histogram", "From the call of stage() to its return.", ("via",), _CALL
)
STAGING_BREAKER = Metric(
    "stagepost_staging_breaker_state",
    "gauge",
    "The service's breaker of the staging broker: 0 closed, 1 half-open, 2 open.",
)
OUTBOX_ROWS = Metric("stagepost_outbox_rows", "gauge", "Events in this process's outbox.")
OUTBOX_BYTES = Metric("stagepost_outbox_bytes", "gauge", "Bytes of events in this process's outbox.")
OUTBOX_AGE = Metric(
    "stagepost_outbox_oldest_age_seconds", "gauge", "How long the oldest event has been in the outbox."
)

# --- in the worker
CONSUMED = Metric("stagepost_consumed_total", "counter", "Staging records taken up.")
DELIVERED = Metric(
    "stagepost_delivered_total", "counter", "Events acknowledged by their target.", ("target",)
)
DEAD_LETTERED = Metric(
    "stagepost_dead_lettered_total",
    "counter",
    "Events acknowledged by a dead-letter topic.",
    ("topic", "error_class", "disposition"),
)
SKIPPED = Metric(
    "stagepost_skipped_total", "counter", "Events that ended as an audit record.", ("error_class",)
)
PARKED = Metric("stagepost_parked_total", "counter", "Events parked, by target.", ("target",))
WAY_SECONDS = Metric(
    "stagepost_delivery_seconds",
    "histogram",
    "From stage-time to the target's acknowledgement; of events acknowledged together the longest.",
    ("target",),
    _WAY,
)
LAG = Metric(
    "stagepost_lag_records", "gauge", "Records of a staging partition that are not committed.", ("partition",)
)
WAITING = Metric(
    "stagepost_partition_waiting",
    "gauge",
    "1 while a staging partition waits for a cause that /health/ready names.",
    ("partition",),
)
READY = Metric("stagepost_ready", "gauge", "1 while /health/ready says so.")
REREAD = Metric(
    "stagepost_reread_total", "counter", "Fetched lists that left out records and were fetched again."
)
BREAKER = Metric(
    "stagepost_breaker_state", "gauge", "A target's breaker: 0 closed, 1 half-open, 2 open.", ("target",)
)
PARKED_NOW = Metric(
    "stagepost_parked_records", "gauge", "Events parked now, of this worker's partitions.", ("target",)
)
DEAD_OPEN = Metric(
    "stagepost_dead_letters_open",
    "gauge",
    "Open dead letters of all workers, as the index knows them.",
    ("topic",),
)
DEAD_BEHIND = Metric("stagepost_dead_letters_behind", "gauge", "Records that the index has not read yet.")
JOB_DONE = Metric("stagepost_job_done_records", "gauge", "Done by jobs that have not ended.", ("kind",))
JOB_LEFT = Metric("stagepost_job_left_records", "gauge", "Left to jobs that have not ended.", ("kind",))
WEB_REFUSED = Metric(
    "stagepost_web_refused_total", "counter", "Requests to the pages that were refused.", ("reason",)
)

ALL: tuple[Metric, ...] = (
    STAGED,
    STAGE_FAILED,
    STAGE_SECONDS,
    STAGING_BREAKER,
    OUTBOX_ROWS,
    OUTBOX_BYTES,
    OUTBOX_AGE,
    CONSUMED,
    DELIVERED,
    DEAD_LETTERED,
    SKIPPED,
    PARKED,
    WAY_SECONDS,
    LAG,
    WAITING,
    READY,
    REREAD,
    BREAKER,
    PARKED_NOW,
    DEAD_OPEN,
    DEAD_BEHIND,
    JOB_DONE,
    JOB_LEFT,
    WEB_REFUSED,
)


class Histogram:
    """How often a duration fell into each bucket, and the sum of all, in seconds."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """One for each bound, not cumulative, and one for what is longer than all."""
        self.sum = 0.0

    def observe(self, seconds: float, count: int) -> None:
        """`count` durations of this many seconds."""
        self.counts[bisect_left(self.bounds, seconds)] += count
        self.sum += seconds * count

    def observe_each(self, durations: Sequence[float]) -> None:
        """Durations in seconds, one by one."""
        bounds, counts = self.bounds, self.counts
        for seconds in durations:
            counts[bisect_left(bounds, seconds)] += 1
        self.sum += sum(durations)

    def quantile(self, share: float) -> float | None:
        """The duration that this share of all did not exceed, as the bound of its bucket; None where it is unknown
        or longer than all bounds."""
        total = sum(self.counts)
        below = 0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            below += count
            if total and below >= share * total:
                return bound
        return None


Sample = tuple[Metric, Labels, "float | Histogram"]


class Metrics:
    """The numbers of one process. Counting costs a dictionary access; call it per batch, not per event."""

    def __init__(self) -> None:
        self._counters: dict[tuple[Metric, Labels], float] = {}
        self._histograms: dict[tuple[Metric, Labels], Histogram] = {}
        self._sources: list[Callable[[], Iterable[Sample]]] = []

    def add(self, metric: Metric, count: float, *labels: str) -> None:
        """Add to a counter."""
        at = (metric, labels)
        self._counters[at] = self._counters.get(at, 0) + count

    def put(self, metric: Metric, count: float, *labels: str) -> None:
        """Set a counter that is counted elsewhere."""
        self._counters[metric, labels] = count

    def histogram(self, metric: Metric, *labels: str) -> Histogram:
        """The histogram itself, for who observes so often that looking it up would cost."""
        return self._histograms.setdefault((metric, labels), Histogram(metric.buckets))

    def observe(self, metric: Metric, seconds: float, count: int, *labels: str) -> None:
        """Count durations in a histogram."""
        self.histogram(metric, *labels).observe(seconds, count)

    def look_at(self, source: Callable[[], Iterable[Sample]]) -> None:
        """Ask `source` for the values of gauges each time somebody reads."""
        self._sources.append(source)

    def total(self, metric: Metric, first_label: str | None = None) -> float:
        """The sum of a counter over all its labels, or over those that begin with this one."""
        return sum(
            count
            for (found, labels), count in self._counters.items()
            if found is metric and first_label in (None, *labels[:1])
        )

    def merged(self, metric: Metric) -> Histogram:
        """A histogram over all its labels."""
        merged = Histogram(metric.buckets)
        for (found, _), histogram in self._histograms.items():
            if found is metric:
                merged.counts = [a + b for a, b in zip(merged.counts, histogram.counts, strict=True)]
                merged.sum += histogram.sum
        return merged

    def read(self) -> Iterator[Sample]:
        """Every value there is now."""
        for (metric, labels), count in list(self._counters.items()):
            yield metric, labels, count
        for (metric, labels), histogram in list(self._histograms.items()):
            yield metric, labels, histogram
        yield from self.looked_at()

    def looked_at(self) -> Iterator[Sample]:
        """The values of the gauges now."""
        for source in self._sources:
            yield from source()

    def absorb(self, other: Metrics) -> None:
        """Add what another one has counted; its gauges stay its own. May be called from any thread."""
        for (metric, labels), count in list(other._counters.items()):
            self.add(metric, count, *labels)
        for (metric, labels), histogram in list(other._histograms.items()):
            found = self.histogram(metric, *labels)
            found.counts = [a + b for a, b in zip(found.counts, histogram.counts, strict=True)]
            found.sum += histogram.sum
