"""Events that are staged beside what is measured: probes with their times, or bursts that nobody times.

    python -m benchmarks.ways.live SERVERS NAMESPACE probes|bursts RATE

Runs until it is ended. `probes`: RATE a second of a target of their own, at random times, for a redrive's pages come at
a beat and are to be met at any moment of it; prints a line for each that arrived: its number, when it was staged
(seconds since 1970) and how many seconds later its target gave it to a reader. `bursts`: RATE a second of the target
that dead letters are redriven to, as large and as bunched as those are; stopped for a while, it does not catch up. In a
process of its own: what shares Python's lock with a probe is in its time.
"""

from __future__ import annotations

import itertools
import random
import sys
import threading
import time

from confluent_kafka import Consumer, Producer

from tests.worker.shop_records import staged

_PROBE_TENANTS, _BURST_TENANTS = 50, 500
_BURST = 25


def _read(servers: str, namespace: str) -> None:
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "live", "auto.offset.reset": "earliest"})
    consumer.subscribe([f"{namespace}.report.made"])
    while True:
        message = consumer.poll(1.0)
        if message is not None and message.error() is None:
            now = time.time()
            number, at = (message.value() or b"").split()
            print(int(number), float(at), now - float(at), flush=True)


def _probes(servers: str, namespace: str, rate: float) -> None:
    threading.Thread(target=_read, args=(servers, namespace), daemon=True).start()
    producer = Producer({"bootstrap.servers": servers, "acks": "all", "linger.ms": 0})
    draw, due = random.Random(7), time.perf_counter()
    for number in itertools.count():
        due += draw.expovariate(rate)
        time.sleep(max(0.0, due - time.perf_counter()))
        tenant = b"l%d" % (number % _PROBE_TENANTS)
        record = staged(f"live-{number}", {"definition": b"report.made", "tenant": tenant})
        value = b"%d %f" % (number, time.time())
        producer.produce(f"{namespace}.staging", value, record.key, headers=list(record.headers))
        producer.poll(0)


def _bursts(servers: str, namespace: str, rate: float) -> None:
    producer, due = (
        Producer({"bootstrap.servers": servers, "acks": "all", "linger.ms": 1}),
        time.perf_counter(),
    )
    for burst in itertools.count():
        for number in range(burst * _BURST, (burst + 1) * _BURST):
            tenant = b"t%d" % (number % _BURST_TENANTS)
            record = staged(f"c{number:06}", {"tenant": tenant}, value=b"%300d" % number)
            producer.produce(
                f"{namespace}.staging", record.value, record.key, burst % 6, headers=list(record.headers)
            )
        producer.poll(0)
        due = max(due + _BURST / rate, time.perf_counter())
        time.sleep(max(0.0, due - time.perf_counter()))


if __name__ == "__main__":
    {"probes": _probes, "bursts": _bursts}[sys.argv[3]](sys.argv[1], sys.argv[2], float(sys.argv[4]))
