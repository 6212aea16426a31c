"""What a redrive gives and costs: events a second as fast as it goes, and the latency of live events beside it.

    make bench-redrive

Owns: a worker with dead letters, live events with their times, the two figures. Must not know: how a redrive works.
Fails where fewer than 5,000 events a second go back, or where live events beside 500 a second have a p99 more than a
fifth higher than without: the median of several rounds, in turns, for single hiccups of a machine make a p99. A control
tells how much of that is the delivery of 500 more events a second, whoever stages them.
"""

from __future__ import annotations

import itertools
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Consumer, Producer

from devtools.kafka import Cluster
from pipeline.redrive.job import JobKind, JobState, Order, Progress, Wanted, read_told
from tests.kafka_client import OutRecord, create_topic, produce, read_all, record_count, wait_until
from tests.worker.shop_records import CATALOG, staged, wait_committed
from tests.worker_harness import WorkerProcess

_NAMESPACE = "redriven"
_COUNT = 100_000
_LEAST_PER_S, _MOST_SHARE = 5_000, 1.2
_LIVE_PER_S, _LIVE_S, _ROUNDS = 200, 8, 7
_BESIDE_PER_S, _BURST = 500, 25
_OFF = {"STREAMING_EVENT_POLICIES": "order.created.enabled=false"}
_DLQ = f"{_NAMESPACE}.order.created.dlq"


def _order(bootstrap: str, job: str, rate: float, want: Wanted = Wanted.RUN) -> None:
    order = Order(
        job=job,
        kind=JobKind.REDRIVE,
        selection={"topic": _DLQ},
        rate=rate,
        by="bench",
        reason="",
        at=4_000_000_000.0,
        want=want,
    )
    key, value, _ = order.record()
    produce(bootstrap, f"{_NAMESPACE}.jobs", [OutRecord(key, value)])


def _progress(bootstrap: str, job: str) -> list[Progress]:
    told = [read_told(record.value) for record in read_all(bootstrap, f"{_NAMESPACE}.jobs")]
    return [one for one in told if isinstance(one, Progress) and one.job == job]


def _has_ended(bootstrap: str, job: str) -> bool:
    return any(one.state is not JobState.RUNNING for one in _progress(bootstrap, job))


def _cpu_s(worker: WorkerProcess) -> float:
    """What the worker has used of the processor so far, seconds."""
    fields = Path(f"/proc/{worker.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Live:
    """Live events of another target, and how long each takes from before it is staged until it is read."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._latencies: list[float] = []

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read the target all the time."""
        ended = threading.Event()
        consumer = Consumer(
            {"bootstrap.servers": self._bootstrap, "group.id": "live", "auto.offset.reset": "earliest"}
        )
        consumer.subscribe([f"{_NAMESPACE}.report.made"])

        def read() -> None:
            while not ended.is_set():
                message = consumer.poll(0.2)
                if message is not None and message.error() is None:
                    self._latencies.append(time.time() - float(message.value() or b"0"))

        try:
            with _beside(read, ended):
                yield
        finally:
            consumer.close()

    def p99(self, name: str) -> float:
        """Stage for a while at a steady rate; the p99 in milliseconds."""
        producer = Producer({"bootstrap.servers": self._bootstrap, "acks": "all", "linger.ms": 0})
        self._latencies.clear()
        began, count = time.perf_counter(), _LIVE_PER_S * _LIVE_S
        for number in range(count):
            record = staged(
                f"{name}-{number}", {"definition": b"report.made", "tenant": b"l%d" % (number % 50)}
            )
            producer.produce(
                f"{_NAMESPACE}.staging", b"%f" % time.time(), record.key, headers=list(record.headers)
            )
            producer.poll(0)
            time.sleep(max(0.0, began + (number + 1) / _LIVE_PER_S - time.perf_counter()))
        producer.flush(30)
        wait_until(lambda: len(self._latencies) >= count, 60, "the live events")
        return 1_000 * sorted(self._latencies)[int(0.99 * count)]


def main() -> int:
    """Measure both; 1 where one is not as it must be."""
    with Cluster() as kafka:
        bootstrap = kafka.bootstrap
        create_topic(bootstrap, f"{_NAMESPACE}.staging", 6)
        create_topic(bootstrap, f"{_NAMESPACE}.report.made", 6)
        records = (
            staged(f"e{n:06}", {"tenant": b"t%d" % (n % 500)}, value=b"%300d" % n) for n in range(_COUNT)
        )
        places = produce(bootstrap, f"{_NAMESPACE}.staging", records)
        with WorkerProcess(bootstrap, _NAMESPACE, catalog=CATALOG, env=_OFF) as off:
            wait_committed(off.wait_ready(), bootstrap, _NAMESPACE, places, 300)
            off.terminate()
        with WorkerProcess(bootstrap, _NAMESPACE, catalog=CATALOG) as worker:
            worker.wait_ready()
            share = _share(bootstrap, Live(bootstrap))
            left = _COUNT - record_count(bootstrap, f"{_NAMESPACE}.dlq.state")
            cpu_s = _cpu_s(worker)
            _order(bootstrap, "fast", 0.0)
            wait_until(lambda: _has_ended(bootstrap, "fast"), 300, "the end of the redrive")
            told = _progress(bootstrap, "fast")
            per_s = left / (told[-1].at - told[0].at)
            places = [
                (record.partition, record.offset) for record in read_all(bootstrap, f"{_NAMESPACE}.staging")
            ]
            wait_committed(worker, bootstrap, _NAMESPACE, places, 120)
            cpu = (_cpu_s(worker) - cpu_s) / left
            print(
                f"{left:,} events redriven, {per_s:,.0f} a second; with delivery {1e6 * cpu:.0f} µs of CPU each"
            )
    print(f"p99 of live events beside 500 a second: {share:.2f} of that without")
    return int(per_s < _LEAST_PER_S or share > _MOST_SHARE)


def _share(bootstrap: str, live: Live) -> float:
    """The p99 of live events beside a redrive, as a share of that without; the median of all rounds."""
    beside, control = [], []
    with live.reading():
        live.p99("warm")
        for number in range(_ROUNDS):
            without = live.p99(f"without-{number}")
            with _redrive(bootstrap, f"slow-{number}"):
                redriven = live.p99(f"beside-{number}")
            with _staging(bootstrap):
                staged_anew = live.p99(f"control-{number}")
            print(
                f"p99 of live events: {without:.1f} ms, beside {_BESIDE_PER_S} redriven a second {redriven:.1f} ms, "
                f"beside as many staged {staged_anew:.1f} ms",
                flush=True,
            )
            beside.append(redriven / without)
            control.append(staged_anew / without)
    print(f"beside as many staged: {statistics.median(control):.2f} of that without")
    return statistics.median(beside)


@contextmanager
def _redrive(bootstrap: str, job: str) -> Iterator[None]:
    """A redrive, from its first word to its last."""
    _order(bootstrap, job, _BESIDE_PER_S)
    wait_until(lambda: _progress(bootstrap, job), 60, "its begin")
    yield
    assert not _has_ended(bootstrap, job), "it was through too early"
    _order(bootstrap, job, _BESIDE_PER_S, Wanted.CANCEL)
    wait_until(lambda: _has_ended(bootstrap, job), 60, "its end")
    told = _progress(bootstrap, job)
    per_s = (told[-1].done - told[0].done) / (told[-1].at - told[0].at)
    assert per_s > 0.8 * _BESIDE_PER_S, f"only {per_s:.0f} a second were redriven"


@contextmanager
def _staging(bootstrap: str) -> Iterator[None]:
    """Events like those that are redriven, as many and as bunched, staged by another program."""
    ended = threading.Event()

    def stage() -> None:
        producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 1})
        for burst in itertools.count():
            for number in range(burst * _BURST, (burst + 1) * _BURST):
                record = staged(f"c{number:06}", {"tenant": b"t%d" % (number % 500)}, value=b"%300d" % number)
                producer.produce(
                    f"{_NAMESPACE}.staging", record.value, record.key, burst % 6, headers=list(record.headers)
                )
            producer.poll(0)
            if ended.wait(_BURST / _BESIDE_PER_S):
                break
        producer.flush(30)

    with _beside(stage, ended):
        yield


@contextmanager
def _beside(work: Callable[[], None], ended: threading.Event) -> Iterator[None]:
    """Work in a thread of its own, which ends once `ended` is set."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
