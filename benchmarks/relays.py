"""What moves staged events to their targets: each contender as a program, measured from outside.

Owns: the contenders' commands, and how one is measured: the CPU of its process tree and the wall time between the
moment when it has delivered a first part of a backlog and the moment when it has delivered all of it. Start-up is
thus in nobody's figure. Must not know: how often, or what is made of the figures.
"""

from __future__ import annotations

import socket
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from benchmarks.load import PARTITIONS, SOURCE, catalog
from benchmarks.programs import Program, environment, python
from benchmarks.topics import Ends, Topics

__all__ = ["RELAYS", "Figure", "Job", "Relay", "Watched", "measure", "staging", "together", "watch"]

_WARM = 0.2
_LIMIT_S = 60.0
_SLOWEST = 2_000
_LOOK_S = 0.05


class Figure(NamedTuple):
    """What one run took: CPU in microseconds an event, events a second of wall time, peak resident bytes seen."""

    cpu_us: float
    per_s: float
    rss: int = 0


def together(parts: Sequence[Figure]) -> Figure:
    """What runs of equally many events took together."""
    return Figure(
        statistics.fmean(part.cpu_us for part in parts),
        statistics.harmonic_mean([part.per_s for part in parts]),
        max(part.rss for part in parts),
    )


@dataclass(frozen=True, slots=True)
class Job:
    """A backlog of so many events on a cluster, and a folder for logs."""

    servers: str
    events: int
    folder: Path

    @property
    def namespace(self) -> str:
        """The namespace whose staging topic holds exactly these events."""
        return f"bench{self.events}"


@dataclass(frozen=True, slots=True)
class Relay:
    """A contender: its name, the share of the events it gets, its command, environment, topics and group."""

    title: str
    start: Callable[[Job], Program]
    prefix: Callable[[Job], str]
    group: Callable[[Job], str] | None = None
    """Its consumer group, where each run does not have one of its own."""
    share: float = 1.0


def staging(events: int) -> str:
    """The staging topic that holds the events 0 to `events`."""
    return f"bench{events}.staging"


def worker_settings(job: Job) -> dict[str, str]:
    """The settings of a worker, but for what is left at its default."""
    return {
        "BROKERS": job.servers,
        "NAMESPACE": job.namespace,
        "CATALOG": "catalog.examples.flights",
        "CLOUDEVENTS_SOURCE": SOURCE,
        "DATA_DIR": str(job.folder / "data"),
        "OUTBOX_DIR": str(job.folder / "outbox"),
        "WEB_PORT": str(free_port()),
    }


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def start_worker(job: Job, **more: str) -> Program:
    """The worker as users start it."""
    command = [
        str(Path(sys.executable).with_name("faust")),
        "-A",
        "pipeline",
        "-L",
        "uvloop",
        "worker",
        "-l",
        "info",
    ]
    return Program(command, environment(**worker_settings(job) | more), job.folder / "worker.log")


def start_floor(job: Job, topic: str, prefix: str, *, level: int) -> Program:
    """The floor, from a staging topic to targets under a prefix, at a level of lz4."""
    command = python("benchmarks.ways.floor", job.servers, topic, prefix, str(level))
    return Program(command, environment(), job.folder / "floor.log")


def _floor(level: int) -> Callable[[Job], Program]:
    return lambda job: start_floor(job, staging(job.events), f"floor{job.events}", level=level)


def _naive(job: Job) -> Program:
    arguments = (job.servers, staging(job.events), f"naive{job.events}")
    return Program(python("benchmarks.ways.naive_faust", *arguments), environment(), job.folder / "naive.log")


RELAYS: dict[str, Relay] = {
    "worker": Relay(
        "this worker", start_worker, lambda job: job.namespace, lambda job: f"{job.namespace}-pipeline"
    ),
    "floor": Relay(
        "**the floor**: aiokafka `getmany` + `send_batch`, lz4 level 1",
        _floor(1),
        lambda job: f"floor{job.events}",
    ),
    "floor-9": Relay(
        "the floor as aiokafka comes, lz4 level 9",
        _floor(9),
        lambda job: f"floor{job.events}",
    ),
    "naive": Relay(
        "naive Faust: `async for` + `topic.send`",
        _naive,
        lambda job: f"naive{job.events}",
        share=0.1,
    ),
}


def targets(prefix: str) -> list[str]:
    """The target topics under a prefix."""
    return list(catalog(prefix).topics)


def prepare(topics: Topics, relay: Relay, job: Job) -> None:
    """Make the contender's topics, and fill the backlog if it is not there yet."""
    topics.create(targets(relay.prefix(job)))
    if topics.create([staging(job.events)]):
        topics.fill(staging(job.events), range(job.events))


def measure(topics: Topics, relay: Relay, job: Job) -> Figure:
    """One verified run of a contender over the whole backlog. Raises `Lost` or `ProgramFailed`."""
    names = targets(relay.prefix(job))
    if relay.group is not None:
        topics.forget_group(relay.group(job))
    before = topics.ends(names)
    with relay.start(job) as program:
        figure = watch(topics, program, names, before, job.events)
    topics.verify(before, topics.ends(names), range(job.events))
    return figure


class Watched(Protocol):
    """A program, or several."""

    def cpu(self) -> float:
        """Seconds of CPU so far."""
        ...

    def rss(self) -> int:
        """Resident bytes."""
        ...

    def check(self) -> None:
        """Raise `ProgramFailed` unless it runs."""
        ...

    def tail(self) -> str:
        """The end of its log."""
        ...


def watch(
    topics: Topics,
    program: Watched,
    names: list[str],
    before: Ends,
    count: int,
    *,
    partitions: int = PARTITIONS,
) -> Figure:
    """Wait until `count` events arrived since `before`, and measure all but the first part of them."""
    start: tuple[int, float, float] | None = None
    limit, rss, total = time.monotonic() + _LIMIT_S + count / _SLOWEST, 0, sum(before.values())
    while True:
        ends = topics.ends(names, partitions)
        cpu, now, done = program.cpu(), time.monotonic(), sum(ends.values()) - total
        rss = max(rss, program.rss())
        if start is None and done >= count * _WARM:
            start = done, cpu, now
        if done >= count:
            assert start is not None
            moved = max(1, done - start[0])
            return Figure((cpu - start[1]) / moved * 1e6, moved / max(now - start[2], _LOOK_S), rss)
        program.check()
        if now > limit:
            raise TimeoutError(f"{done} of {count} events in time; its log ends:\n{program.tail()}")
        time.sleep(_LOOK_S)
