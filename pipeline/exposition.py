"""Metrics as Prometheus reads them. The only module that loads prometheus_client.

Owns: the translation. Must not know: what is counted, or where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import REGISTRY, CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from pipeline.metrics import Histogram, Metric, Sample

__all__ = ["CONTENT_TYPE", "export", "text"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Collector(Collector):
    def __init__(self, read: Callable[[], Iterable[Sample]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Family]:
        """One family for each metric that has a value."""
        found: dict[Metric, list[Sample]] = {}
        for sample in self._read():
            found.setdefault(sample[0], []).append(sample)
        for metric, samples in found.items():
            yield _family(metric, samples)

    def describe(self) -> Iterable[Family]:
        """Nothing: what has no value yet is not exported."""
        return ()


def text(read: Callable[[], Iterable[Sample]]) -> bytes:
    """Everything there is now in Prometheus's text format, the process's own numbers too."""
    registry = CollectorRegistry()
    registry.register(_Collector(read))
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return generate_latest(registry)


def export(read: Callable[[], Iterable[Sample]]) -> None:
    """Have them read wherever this process exports prometheus_client's default registry."""
    REGISTRY.register(_Collector(read))


def _family(metric: Metric, samples: Iterable[Sample]) -> Family:
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for _, labels, value in samples:
            assert isinstance(value, Histogram)
            histogram.add_metric(labels, list(_cumulative(value)), value.sum)
        return histogram
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family: CounterMetricFamily | GaugeMetricFamily = kind(metric.name, metric.help, labels=metric.labels)
    for _, labels, value in samples:
        assert not isinstance(value, Histogram)
        family.add_metric(labels, value)
    return family


def _cumulative(histogram: Histogram) -> Iterator[tuple[str, float]]:
    below = 0
    for bound, count in zip((*map(str, histogram.bounds), "+Inf"), histogram.counts, strict=True):
        below += count
        yield bound, below
