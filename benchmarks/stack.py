"""Which way through the stack costs what.

`python -m benchmarks.stack --brokers HOST:PORT --events N --rounds R` loads the staging topics, runs each way
of `benchmarks.contenders` in its own process, rounds interleaved, proves after every run that nothing is
missing, doubled or out of order, and prints a table. Must not know how a way works.
Needs a scratch cluster: it creates topics named `bench.*` and leaves them.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import aiokafka
import confluent_kafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.partitioner import murmur2

from benchmarks.contenders import WAYS
from benchmarks.load import PARTITIONS, TARGETS, TOPICS, staged_records
from benchmarks.packing import partition_of

RUN_LIMIT_S = 180
Offsets = dict[aiokafka.TopicPartition, int]


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of a way took: CPU in microseconds an event, start-up and process CPU in seconds."""

    way: str
    round: int
    events: int
    cpu_us: float
    events_per_s: float
    startup_cpu_s: float
    process_cpu_s: float
    load: float
    spin_ms: float


@functools.cache
def expected(events: int) -> Counter[tuple[str, int]]:
    """How many of the first `events` records each target partition has to get."""
    return Counter(
        (TARGETS[record.definition].topic, partition_of(record.tenant)) for record in staged_records(events)
    )


def preload(brokers: str, topic: str, events: int) -> None:
    """Fill an empty staging topic. librdkafka hashes the keys: so two murmur2 are compared."""
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": brokers,
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2",
            "compression.type": "lz4",
            "linger.ms": 20,
            "batch.size": 500_000,
        }
    )
    for record in staged_records(events):
        producer.produce(topic, record.value, record.tenant, headers=list(record.headers))
        if record.number % 10_000 == 0:
            producer.poll(0)
            producer.flush()
    if producer.flush(60):
        raise RuntimeError(f"the broker did not take all of {topic}: look at its log")


async def create_topics(brokers: str, names: Iterable[str]) -> set[str]:
    """Create what is missing; the names that were missing."""
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    try:
        missing = set(names) - set(await admin.list_topics())
        await admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in missing])
    finally:
        await admin.close()
    return missing


async def end_offsets(brokers: str) -> Offsets:
    """Where each target partition ends."""
    consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=brokers)
    await consumer.start()
    try:
        ends: Offsets = await consumer.end_offsets(
            [aiokafka.TopicPartition(*pair) for pair in itertools.product(TOPICS, range(PARTITIONS))]
        )
    finally:
        await consumer.stop()
    return ends


async def verify(brokers: str, before: Offsets, events: int, sample: int) -> None:
    """Raise unless all target partitions got their records, and the sampled one has each key in order."""
    after = await end_offsets(brokers)
    arrived = {(tp.topic, tp.partition): after[tp] - before[tp] for tp in after if after[tp] > before[tp]}
    wanted = expected(events)
    wrong = {
        key: (arrived.get(key, 0), wanted[key]) for key in arrived | wanted if arrived.get(key) != wanted[key]
    }
    if wrong:
        raise RuntimeError(f"(arrived, expected) differ: {wrong}")
    partition = list(after)[sample % len(after)]
    consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=brokers, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([partition])
        consumer.seek(partition, before[partition])
        last: dict[bytes, int] = {}
        while await consumer.position(partition) < after[partition]:
            for record in (await consumer.getmany(timeout_ms=1_000)).get(partition, []):
                number = json.loads(record.value)["number"]
                if number <= last.get(record.key, -1):
                    raise RuntimeError(f"{partition}: {record.key} has {number} behind {last[record.key]}")
                last[record.key] = number
    finally:
        await consumer.stop()


def spin_ms() -> float:
    """CPU milliseconds of a fixed piece of Python: how fast the machine is at this moment."""
    started = time.process_time()
    for _ in range(20_000):
        murmur2(b"tenant-00042")
    return (time.process_time() - started) * 1_000


def run(brokers: str, way: str, events: int, number: int) -> Run:
    """Run one way in a process of its own; raises when it fails or takes longer than `RUN_LIMIT_S`."""
    load, spin = os.getloadavg()[0], spin_ms()
    command = [sys.executable, "-m", "benchmarks.contenders", way, "--brokers", brokers]
    process = subprocess.Popen(
        [*command, "--staging", staging(events), "--events", str(events)], stdout=subprocess.PIPE, text=True
    )
    timer = threading.Timer(RUN_LIMIT_S, process.kill)
    timer.start()
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    timer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0 or not output:
        raise RuntimeError(f"{way} ended with status {process.returncode}: its error is above")
    figures = json.loads(output)
    return Run(
        way=way,
        round=number,
        events=events,
        cpu_us=figures["cpu"] / events * 1e6,
        events_per_s=events / figures["wall"],
        startup_cpu_s=figures["startup"],
        process_cpu_s=usage.ru_utime + usage.ru_stime,
        load=load,
        spin_ms=spin,
    )


def staging(events: int) -> str:
    """The staging topic that holds exactly `events` records."""
    return f"bench.staging-{events}"


def _spread(values: list[float], digits: int = 1) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def table(runs: list[Run]) -> str:
    """Medians with minimum and maximum, as Markdown; the ratio is to the yardstick's median."""
    yardstick = [run.cpu_us for run in runs if run.way == "yardstick"]
    columns = ("way", "events", "CPU µs/event", "ratio", "thousand/s, wall", "start-up CPU s")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, way in WAYS.items():
        mine = [run for run in runs if run.way == name]
        if not mine:
            continue
        cpu = [run.cpu_us for run in mine]
        ratio = f"{statistics.median(cpu) / statistics.median(yardstick):.2f}" if yardstick else "–"
        wall = _spread([run.events_per_s / 1_000 for run in mine])
        startup = _spread([run.startup_cpu_s for run in mine], 2)
        lines.append(f"| {way.title} | {mine[0].events:,} | {_spread(cpu)} | {ratio} | {wall} | {startup} |")
    return "\n".join(lines)


def measure(brokers: str, events: int, rounds: int, ways: list[str]) -> list[Run]:
    """Load what is missing, warm the broker up with one run that is not counted, then run the rounds."""
    sizes = {way: events // WAYS[way].divisor for way in ways}
    missing = asyncio.run(create_topics(brokers, {*TOPICS, *map(staging, {*sizes.values(), events})}))
    for size in {*sizes.values(), events}:
        if staging(size) in missing:
            preload(brokers, staging(size), size)
    run(brokers, "yardstick", events, -1)
    runs: list[Run] = []
    for number in range(rounds):
        for way in ways:
            before = asyncio.run(end_offsets(brokers))
            runs.append(run(brokers, way, sizes[way], number))
            asyncio.run(verify(brokers, before, sizes[way], sample=len(runs)))
            sys.stderr.write(f"{runs[-1]}\n")
    return runs


def main() -> None:
    """Measure every way (or those named) and print the table; `--json` keeps the single runs."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    runs = measure(arguments.brokers, arguments.events, arguments.rounds, arguments.ways)
    packages = ("aiokafka", "faust-streaming", "mode-streaming", "uvloop", "cramjam")
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, {versions}"
    sys.stdout.write(f"{machine}\n\n{table(runs)}\n")
    if arguments.json:
        kept = {"machine": machine, "runs": [asdict(run) for run in runs]}
        arguments.json.write_text(json.dumps(kept, indent=1))


if __name__ == "__main__":
    main()
