"""What a redrive gives and costs: events a second as fast as it goes, and the latency of live events beside it.

    make bench-redrive

Owns: a worker with dead letters, live events with their times, the two figures. Must not know: how a redrive works.
Fails where fewer than 5,000 events a second go back, or where live events beside 500 a second have a p99 more than a
fifth higher than without.

Live events come all the time, 200 a second at random times. Short windows take turns: nothing beside them; a redrive;
a control, which tells how much of it is the delivery of 500 more events a second, whoever stages them. What is compared
is the p99 of all events of all windows of a kind; how far that may be chance is said beside it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.probes import Window, in_windows, percentile, ratio, ratio_within
from benchmarks.programs import Program, environment, python
from devtools.kafka import Cluster
from pipeline.redrive.job import JobKind, JobState, Order, Progress, Wanted, read_told
from tests.kafka_client import OutRecord, create_topic, produce, read_all, record_count, wait_until
from tests.worker.shop_records import CATALOG, staged, wait_committed
from tests.worker_harness import WorkerProcess

_NAMESPACE = "redriven"
_COUNT = 100_000
_LEAST_PER_S, _MOST_SHARE = 5_000, 1.2
_LIVE_PER_S, _BESIDE_PER_S = 200, 500
_ROUNDS, _WINDOW_S, _SETTLE_S, _WARM_S, _LATE_S = 20, 4.0, 0.5, 15.0, 2.0
"""A broker that has just begun still compiles for the first seconds."""
_ALONE, _REDRIVEN, _STAGED = "alone", f"beside {_BESIDE_PER_S} redriven a second", "beside as many staged"
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


def main() -> int:
    """Measure both; 1 where one is not as it must be."""
    with Cluster(quick_start=False, heap_mb=1_024) as kafka, tempfile.TemporaryDirectory() as folder:
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
            share = _share(bootstrap, worker, Path(folder))
            per_s = _fast(bootstrap, worker)
    return int(per_s < _LEAST_PER_S or share > _MOST_SHARE)


def _fast(bootstrap: str, worker: WorkerProcess) -> float:
    """Redrive what is left as fast as it goes; how many a second."""
    left = _COUNT - record_count(bootstrap, f"{_NAMESPACE}.dlq.state")
    cpu_s = _cpu_s(worker)
    _order(bootstrap, "fast", 0.0)
    wait_until(lambda: _has_ended(bootstrap, "fast"), 300, "the end of the redrive")
    told = _progress(bootstrap, "fast")
    per_s = left / (told[-1].at - told[0].at)
    places = [(record.partition, record.offset) for record in read_all(bootstrap, f"{_NAMESPACE}.staging")]
    wait_committed(worker, bootstrap, _NAMESPACE, places, 120)
    cpu = (_cpu_s(worker) - cpu_s) / left
    print(f"{left:,} events redriven, {per_s:,.0f} a second; with delivery {1e6 * cpu:.0f} µs of CPU each")
    return per_s


def _share(bootstrap: str, worker: WorkerProcess, folder: Path) -> float:
    """The p99 of live events beside a redrive, as a share of that without."""
    windows: list[Window] = []
    cpu_s = dict.fromkeys((_ALONE, _REDRIVEN, _STAGED), 0.0)
    log = folder / "probes.log"
    with (
        Program(_live(bootstrap, "probes", _LIVE_PER_S), environment(), log) as probes,
        Program(_live(bootstrap, "bursts", _BESIDE_PER_S), environment(), folder / "bursts.log") as bursts,
    ):
        time.sleep(_WARM_S)
        bursts.pause()
        for number in range(_ROUNDS):
            for kind in _turn(number, tuple(cpu_s)):
                with _beside(kind, bootstrap, number, bursts):
                    time.sleep(_SETTLE_S)
                    begin, before = time.time(), _cpu_s(worker)
                    time.sleep(_WINDOW_S)
                    windows.append(Window(kind, begin, time.time()))
                    cpu_s[kind] += _cpu_s(worker) - before
        time.sleep(_LATE_S)
        probes.check()
        bursts.check()
    latencies = in_windows(log.read_text().splitlines()[:-1], windows)
    of = {
        kind: [taken for window, taken in zip(windows, latencies, strict=True) if window.beside == kind]
        for kind in cpu_s
    }
    for kind, rounds in of.items():
        p50, p90, p99 = (percentile(rounds, share) for share in (0.5, 0.9, 0.99))
        print(
            f"{sum(map(len, rounds)):,} live events {kind}: p50 {p50:.1f}, p90 {p90:.1f}, p99 {p99:.1f} ms; "
            f"worker {100 * cpu_s[kind] / _ROUNDS / _WINDOW_S:.0f} % of a core; p99 by round "
            + " ".join(f"{percentile([one], 0.99):.1f}" for one in rounds),
            flush=True,
        )
    for kind in (_STAGED, _REDRIVEN):
        least, most = ratio_within(of[kind], of[_ALONE])
        print(
            f"p99 of live events {kind}: {ratio(of[kind], of[_ALONE]):.2f} of that alone "
            f"({least:.2f} to {most:.2f} in nine of ten draws of rounds)",
            flush=True,
        )
    return ratio(of[_REDRIVEN], of[_ALONE])


def _turn(number: int, kinds: Sequence[str]) -> Sequence[str]:
    """The kinds in another order each round, so that each comes first, and behind each other, as often."""
    at = number % len(kinds)
    turned = [*kinds[at:], *kinds[:at]]
    return turned[::-1] if number // len(kinds) % 2 else turned


@contextmanager
def _beside(kind: str, bootstrap: str, number: int, bursts: Program) -> Iterator[None]:
    """Let something run beside the live events, or nothing."""
    if kind == _REDRIVEN:
        with _redrive(bootstrap, f"slow-{number}"):
            yield
    elif kind == _STAGED:
        bursts.resume()
        yield
        bursts.pause()
    else:
        yield


def _live(bootstrap: str, what: str, per_s: int) -> list[str]:
    return python("benchmarks.ways.live", bootstrap, _NAMESPACE, what, str(per_s))


@contextmanager
def _redrive(bootstrap: str, job: str) -> Iterator[None]:
    """A redrive, from its first word to its last."""
    _order(bootstrap, job, _BESIDE_PER_S)
    wait_until(lambda: _progress(bootstrap, job), 60, "its begin")
    yield
    assert not _has_ended(bootstrap, job), "it was through too early"
    _order(bootstrap, job, _BESIDE_PER_S, Wanted.CANCEL)
    wait_until(lambda: _has_ended(bootstrap, job), 60, "its end")
    told = _progress(bootstrap, job)[1:]  # its first word is from before it connects
    per_s = (told[-1].done - told[0].done) / (told[-1].at - told[0].at)
    assert per_s > 0.8 * _BESIDE_PER_S, f"only {per_s:.0f} a second were redriven"


if __name__ == "__main__":
    sys.exit(main())
