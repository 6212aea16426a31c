"""What parking costs and gives: rates, memory, and what the other targets notice. `python -m benchmarks.parking`.

Owns: one broker that looks at rights, one worker, the figures. Must not know: how parking works.

One target of a catalog of ten is sick (nobody may write to it); 300-byte values, 1,000 tenants, 6 partitions.
"""

from __future__ import annotations

import argparse
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition

from devtools.kafka import Cluster
from tests.kafka_client import committed, create_topic, partition_count, record_count, wait_until
from tests.parking.guarded import GUARDED, SICK, WELL, deny
from tests.worker.shop_records import CATALOG, staged
from tests.worker_harness import WorkerProcess

NAMESPACE = "bench"
_VALUE = b'{"text": "%s"}' % (b"x" * 286)
_PARTITIONS = 6
_LIVE_PER_S = 1_500
_TICKS = os.sysconf("SC_CLK_TCK")


class Bench:
    """The broker, the worker, what was staged."""

    def __init__(self, cluster: Cluster, worker: WorkerProcess) -> None:
        self.bootstrap = cluster.bootstrap
        self.worker = worker
        self.peak_mb = 0.0
        self._number = 0
        self._producer = Producer(
            {"bootstrap.servers": self.bootstrap, "compression.type": "lz4", "linger.ms": 20}
        )

    def topic(self, name: str) -> str:
        """A full name."""
        return f"{NAMESPACE}.{name}"

    def stage(self, definition: str, count: int) -> None:
        """Write so many staging records, and wait for the broker."""
        for _ in range(count):
            self.send(definition)
        self._producer.flush(120)

    def send(self, definition: str, event_id: str = "") -> None:
        """One staging record, without waiting."""
        self._number += 1
        tenant = b"tenant-%d" % (self._number % 1_000)
        record = staged(
            event_id or f"e{self._number}",
            {"definition": definition.encode(), "tenant": tenant},
            value=_VALUE,
        )
        while True:
            try:
                self._producer.produce(
                    self.topic("staging"), record.value, record.key, headers=list(record.headers)
                )
                break
            except BufferError:
                self._producer.poll(0.05)
        self._producer.poll(0)

    def done(self) -> bool:
        """Whether everything staged is committed."""
        found = committed(self.bootstrap, f"{NAMESPACE}-pipeline", self.topic("staging"))
        return sum(found.values()) >= record_count(self.bootstrap, self.topic("staging"))

    def cpu_s(self) -> float:
        """CPU seconds of the worker."""
        fields = Path(f"/proc/{self.worker.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def rss_mb(self) -> float:
        """The worker's memory; the peak is noted."""
        pages = int(Path(f"/proc/{self.worker.pid}/statm").read_text().split()[1])
        now = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
        self.peak_mb = max(self.peak_mb, now)
        return now

    def timed(self, what: str, count: int, done: object, limit_s: float) -> float:
        """Wait, and say how fast it went; records per second."""
        began, cpu = time.monotonic(), self.cpu_s()

        def look() -> bool:
            self.rss_mb()
            return bool(done())  # type: ignore[operator]

        wait_until(look, limit_s, what)
        took = time.monotonic() - began
        rate = count / took
        print(
            f"{what:46} {count:>9,} in {took:6.1f} s  {rate:>8,.0f}/s  "
            f"{1e6 * (self.cpu_s() - cpu) / count:6.1f} µs CPU each  peak {self.peak_mb:.0f} MB",
            flush=True,
        )
        return rate


@contextmanager
def live(bench: Bench, per_s: int, name: str, *, also_sick: int = 0) -> Iterator[list[float]]:
    """Stage events of the well target steadily; the latencies of those that arrived, in seconds."""
    sent: dict[str, float] = {}
    latencies: list[float] = []
    stop = threading.Event()
    consumer = Consumer({"bootstrap.servers": bench.bootstrap, "group.id": name, "fetch.wait.max.ms": 5})
    topic = bench.topic(WELL)
    parts = [TopicPartition(topic, number) for number in range(partition_count(bench.bootstrap, topic))]
    for part in parts:
        part.offset = consumer.get_watermark_offsets(part)[1]
    consumer.assign(parts)

    def produce() -> None:
        number, began = 0, time.monotonic()
        while not stop.is_set():
            while number < (time.monotonic() - began) * per_s:
                number += 1
                event_id = f"{name}-{number}"
                sent[event_id] = time.monotonic()
                bench.send(WELL, event_id)
                if also_sick and number % (per_s // also_sick) == 0:
                    bench.send(SICK)
            stop.wait(0.005)

    def consume() -> None:
        while not stop.is_set():
            for message in consumer.consume(500, 0.05):
                event_id = str(dict(message.headers() or ())["ce_id"], "ascii")  # type: ignore[arg-type]
                if event_id in sent:
                    latencies.append(time.monotonic() - sent.pop(event_id))

    threads = [threading.Thread(target=target) for target in (produce, consume)]
    for thread in threads:
        thread.start()
    try:
        yield latencies
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        consumer.close()


def p99_ms(latencies: list[float]) -> float:
    """The 99th percentile, in milliseconds."""
    return sorted(latencies)[int(len(latencies) * 0.99)] * 1e3


def neighbours(bench: Bench, seconds: float) -> None:
    """What the healthy targets notice of a sick one: their p99 before, and after the first soft timeout."""
    with live(bench, _LIVE_PER_S, "normal", also_sick=500) as normal:
        time.sleep(5)
        normal.clear()
        time.sleep(seconds)
    deny(bench.bootstrap, bench.topic(SICK))
    with live(bench, _LIVE_PER_S, "sick", also_sick=500) as sick:
        time.sleep(4)
        sick.clear()
        time.sleep(seconds)
    print(
        f"p99 of a healthy target: {p99_ms(normal):.1f} ms, beside a sick one {p99_ms(sick):.1f} ms",
        flush=True,
    )
    print(
        f"median: {sorted(normal)[len(normal) // 2] * 1e3:.1f} and {sorted(sick)[len(sick) // 2] * 1e3:.1f} ms"
    )


def main() -> None:
    """Run everything once."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--parked", type=int, default=1_000_000, help="how many events to park")
    parser.add_argument("--seconds", type=float, default=30, help="how long each latency is looked at")
    options = parser.parse_args()
    env = {"STREAMING_CB_TIMEOUT_S": "5", "STAGEPOST_FAUST_BROKER_SESSION_TIMEOUT": "6"}
    with Cluster(extra_config=GUARDED, quick_start=False, heap_mb=800) as cluster:
        for name in ("staging", SICK, WELL):
            create_topic(cluster.bootstrap, f"{NAMESPACE}.{name}", _PARTITIONS)
        with WorkerProcess(cluster.bootstrap, NAMESPACE, catalog=CATALOG, env=env) as worker:
            bench = Bench(cluster, worker)
            worker.wait_ready()
            neighbours(bench, options.seconds)
            wait_until(bench.done, 60, "the end of what was staged")
            rates(bench, options.parked)


def rates(bench: Bench, parked: int) -> None:
    """Deliver, park, lose worker and disk, drain."""
    worker, quarter = bench.worker, parked // 4
    worker.terminate()
    bench.stage(WELL, quarter)
    worker.start().wait_ready()
    deliver = bench.timed("delivered straight", quarter, bench.done, 600)
    worker.terminate()
    bench.stage(SICK, quarter)
    worker.start().wait_ready()
    park = bench.timed("parked", quarter, bench.done, 600)
    bench.stage(SICK, parked - quarter)
    bench.timed("parked, while they are staged", parked - quarter, bench.done, 900)
    worker.kill()
    shutil.rmtree(worker.folder / "data", ignore_errors=True)
    with live(bench, 10, "after") as arrived:
        began = time.monotonic()
        worker.start()
        wait_until(lambda: arrived, 60, "a healthy event")
        print(
            f"healthy targets flow {time.monotonic() - began:.1f} s after a kill -9 with a wiped disk",
            flush=True,
        )
    before = record_count(bench.bootstrap, bench.topic(SICK))
    deny(bench.bootstrap, bench.topic(SICK), denied=False)
    wait_until(lambda: record_count(bench.bootstrap, bench.topic(SICK)) > before + 10, 60, "the drain")
    with live(bench, _LIVE_PER_S, "drain"):
        left = parked - (record_count(bench.bootstrap, bench.topic(SICK)) - before)
        drain = bench.timed(
            "drained, beside live events",
            left,
            lambda: record_count(bench.bootstrap, bench.topic(SICK)) >= before + parked,
            900,
        )
    print(
        f"park / deliver {park / deliver:.2f}, drain / deliver {drain / deliver:.2f}, peak {bench.peak_mb:.0f} MB"
    )


if __name__ == "__main__":
    main()
