"""What a service counts: its calls of stage(), its breaker, its outbox (O4).

Owns: the numbers of one stager, and their way into the service's own Prometheus export. Must not know: how a call
ends, what waits in an outbox.

A service that exports prometheus_client's default registry has loaded it before it stages; for one that has not,
it is not loaded either (N3).
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator

from pipeline.breaker import State
from pipeline.clock import Clock
from pipeline.errors import ErrorClass
from pipeline.metrics import (
    OUTBOX_AGE,
    OUTBOX_BYTES,
    OUTBOX_ROWS,
    STAGE_FAILED,
    STAGE_SECONDS,
    STAGED,
    STAGING_BREAKER,
    Histogram,
    Metric,
    Metrics,
    Sample,
)
from pipeline.outbox.protocol import Waiting

__all__ = ["LEVELS", "StageMeter"]

LEVELS = {State.CLOSED: 0.0, State.HALF_OPEN: 1.0, State.OPEN: 2.0}


class StageMeter:
    """Counts the calls of one stager, on its event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.metrics = Metrics()
        self._took: dict[str, Histogram] = {}

    def start(self, breaker: Callable[[], State], waiting: Callable[[], Waiting | None]) -> None:
        """Let the numbers be read; these are asked then."""

        def samples() -> Iterator[Sample]:
            yield STAGING_BREAKER, (), LEVELS[breaker()]
            found = waiting()
            if found is not None:
                age_s = 0.0 if found.oldest is None else max(0.0, self._clock.time() - found.oldest)
                yield OUTBOX_ROWS, (), found.rows
                yield OUTBOX_BYTES, (), found.bytes
                yield OUTBOX_AGE, (), age_s

        for error_class in ErrorClass:  # from zero: an alert must see the first one as an increase
            self.metrics.add(STAGE_FAILED, 0, error_class)
        self.metrics.look_at(samples)
        _PROCESS.add(self)

    def staged(self, via: str, *begun: float) -> None:
        """Calls that began then, on the monotonic clock, have made their events durable."""
        took = self._took.get(via)
        if took is None:
            took = self._took[via] = self.metrics.histogram(STAGE_SECONDS, via)
        now = self._clock.monotonic()
        took.observe_each([now - at for at in begun])

    def failed(self, error_class: ErrorClass) -> None:
        """A call has raised."""
        self.metrics.add(STAGE_FAILED, 1, error_class)

    def counted(self) -> Metrics:
        """The numbers up to now. How many were staged is known from how long each took: a call counts once."""
        for via, took in list(self._took.items()):
            self.metrics.put(STAGED, sum(took.counts), via)
        return self.metrics

    def close(self) -> None:
        """The stager has ended; what it counted stays counted."""
        _PROCESS.settle(self)


class _Process:
    """The stagers of a process, and what those that have ended have counted."""

    def __init__(self) -> None:
        self._is_exported = False
        self.begin()

    def begin(self) -> None:
        """Begin with nothing: a forked child has none of its parent's stagers, and none of its counts."""
        self._lock = threading.Lock()
        self._open: list[StageMeter] = []
        self._ended = Metrics()

    def add(self, meter: StageMeter) -> None:
        """One stager more."""
        with self._lock:
            self._open.append(meter)
            if not self._is_exported and "prometheus_client" in sys.modules:
                from pipeline.exposition import export

                self._is_exported = True
                export(self.read)

    def settle(self, meter: StageMeter) -> None:
        """One stager less."""
        with self._lock:
            if meter in self._open:
                self._open.remove(meter)
                self._ended.absorb(meter.counted())

    def read(self) -> Iterator[Sample]:
        """Every value there is now, of all stagers together. They share one outbox: of gauges the highest counts."""
        together = Metrics()
        with self._lock:
            stagers = list(self._open)
            together.absorb(self._ended)
        gauges: dict[tuple[Metric, tuple[str, ...]], float] = {}
        for meter in stagers:
            together.absorb(meter.counted())
            for metric, labels, value in meter.metrics.looked_at():
                assert not isinstance(value, Histogram)
                gauges[metric, labels] = max(value, gauges.get((metric, labels), 0.0))
        yield from together.read()
        for (metric, labels), highest in gauges.items():
            yield metric, labels, highest


_PROCESS = _Process()
os.register_at_fork(after_in_child=_PROCESS.begin)
