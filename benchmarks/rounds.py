"""`make bench` and what `make bench-check` has of it: all contenders, round by round, in turns.

Owns: the order, sizes, and what is left out where a contender is absent. Must not know: how one is measured, or
what is made of the figures.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from benchmarks import golang, latency
from benchmarks.connect import TITLE, Connect
from benchmarks.emits import EMITS, OUTBOXES, Emits
from benchmarks.programs import Absent
from benchmarks.relays import RELAYS, Figure, Job, measure, prepare, together
from benchmarks.results import Results, Samples
from benchmarks.topics import Topics
from devtools.kafka import Cluster
from devtools.kafka.choice import given
from devtools.kafka.jars import kafka_version

__all__ = ["CHECK", "FULL", "Plan", "cluster", "run", "say"]

_LOADS = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Of the worker's maximum: its events a second while it works a backlog off and has the machine for itself."""
_PACKAGES = (
    "aiokafka",
    "faust-streaming",
    "mode-streaming",
    "uvloop",
    "cramjam",
    "confluent-kafka",
    "rocksdict",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything: rounds, events a round, which contenders, seconds at each offered load (0: none)."""

    rounds: int
    relayed: int
    emitted: int
    stored: int
    lone_calls: int
    relays: tuple[str, ...]
    emits: tuple[str, ...]
    load_s: float = 0.0
    others: bool = True
    """Whether to look for the contenders that are not in Python."""
    turns: int = 1
    """In how many parts an emitting contender moves the events of a round, in turns with the others: a machine that
    changes its speed from second to second gives a single run one speed, and each contender another."""


FULL = Plan(
    5, 200_000, 60_000, 30_000, 1_000, tuple(RELAYS), ("stage", "aiokafka", "confluent"), load_s=8.0, turns=4
)
CHECK = Plan(3, 100_000, 25_000, 12_000, 400, ("worker", "floor"), ("stage", "aiokafka"), others=False)


def say(text: str) -> None:
    """Tell whoever waits."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


@contextmanager
def cluster() -> Iterator[str]:
    """The given brokers, or one of our own, with a JVM that compiles in full."""
    there = given()
    if there is not None:
        yield there.bootstrap
        return
    with Cluster(quick_start=False, heap_mb=1_024) as own:
        yield own.bootstrap


def run(servers: str, plan: Plan) -> Results:
    """All rounds; what cannot be had is in `absent`. Raises `Lost` where a round lost or reordered anything."""
    results = Results(machine())
    topics = Topics(servers)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stagepost-bench-")))
        emits = Emits(topics, folder)
        steps = _relays(topics, servers, folder, plan, results)
        for name in plan.emits:
            results.emits[name] = Samples(EMITS[name], plan.emitted)
            steps[name] = partial(emits.measure, name, plan.emitted // plan.turns)
        for name, title in OUTBOXES.items():
            results.outboxes[name] = Samples(title, plan.stored)
            steps[name] = partial(emits.outbox, name, plan.stored)
        if plan.others:
            steps |= _others(stack, topics, folder, emits, plan, results)
        everybody = results.relays | results.emits | results.outboxes
        once = [name for name in steps if name not in results.emits]
        emitting = [name for name in steps if name in results.emits] * plan.turns
        for number in range(plan.rounds):
            figures: defaultdict[str, list[Figure]] = defaultdict(list)
            for name in once + emitting:
                figures[name].append(steps[name]())
                if name == "worker" and plan.load_s:
                    rate = figures[name][-1].per_s / 2
                    _at_half(topics, Job(servers, 0, folder), rate, plan.load_s, results)
            for name, of_round in figures.items():
                figure = together(of_round)
                everybody[name].cpu_us.append(figure.cpu_us)
                everybody[name].per_s.append(figure.per_s)
                say(
                    f"round {number + 1}: {name:14} {figure.cpu_us:8.1f} µs/event {figure.per_s:10,.0f} events/s"
                )
            for way, taken in emits.lone(plan.lone_calls).items():
                for quantile, us in taken.items():
                    results.lone.setdefault(way, {}).setdefault(quantile, []).append(us)
        if plan.load_s:
            loads = [(results.rate("worker") * share, plan.load_s) for share in _LOADS]
            results.latency = latency.percentiles(topics, Job(servers, 0, folder), latency.worker, loads)
    return results


def _at_half(topics: Topics, job: Job, rate: float, seconds: float, results: Results) -> None:
    """What worker and floor make of half the worker's maximum, which was measured a moment ago: the machine drifts."""
    for name, start in (("worker", latency.worker), ("floor", latency.floor)):
        (found,) = latency.percentiles(topics, job, start, [(rate, seconds)])
        results.half_load.setdefault(name, []).append(found)
        say(f"         {name:14} p99 {found['p99_ms']:8.1f} ms at {rate:14,.0f} events/s")


def _relays(
    topics: Topics, servers: str, folder: Path, plan: Plan, results: Results
) -> dict[str, Callable[[], Figure]]:
    steps: dict[str, Callable[[], Figure]] = {}
    for name in plan.relays:
        relay = RELAYS[name]
        job = Job(servers, int(plan.relayed * relay.share), folder)
        prepare(topics, relay, job)
        results.relays[name] = Samples(relay.title, job.events)
        steps[name] = partial(measure, topics, relay, job)
    return steps


def _others(
    stack: ExitStack, topics: Topics, folder: Path, emits: Emits, plan: Plan, results: Results
) -> dict[str, Callable[[], Figure]]:
    """The contenders in Java and Go, as far as they are to be had here."""
    steps: dict[str, Callable[[], Figure]] = {}
    try:
        golang.look_for_lib_streaming()
    except Absent as reason:
        results.absent[f"lib-streaming (Go), {golang.LIB_STREAMING}"] = str(reason)
    else:
        results.absent[f"lib-streaming (Go), {golang.LIB_STREAMING}"] = (
            "it is served here, but has no program yet"
        )
    try:
        golang.build()
    except Absent as reason:
        results.absent[EMITS["franz-go"]] = str(reason)
    else:
        results.emits["franz-go"] = Samples(EMITS["franz-go"], plan.emitted)
        steps["franz-go"] = partial(emits.measure, "franz-go", plan.emitted // plan.turns)
    try:
        connect = stack.enter_context(Connect(topics, folder))
    except Absent as reason:
        results.absent[TITLE] = str(reason)
    else:
        say("warming Kafka Connect")
        for _ in range(3):
            connect.measure(plan.relayed)
        results.relays["connect"] = Samples(TITLE, plan.relayed)
        steps["connect"] = lambda: connect.measure(plan.relayed)
    return steps


def machine() -> dict[str, str]:
    """What this was measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {
        "processor": f"{os.cpu_count()} cores, {model}",
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": ", ".join(f"{package} {version(package)}" for package in _PACKAGES),
        "broker": f"Apache Kafka {kafka_version()}, one KRaft node on the same cores",
    }
