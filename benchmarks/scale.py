"""`make bench-scale`: how the worker's cost of an event grows with everything that can grow, and what idling costs.

Owns: the cases, one worker and one namespace for each. Must not know: other contenders.

Definitions are TOML files made for the case, so this is a user's own catalog. Every case is verified as a round
of `make bench` is.
"""

from __future__ import annotations

import random
import secrets
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.load import Event, id_of, tenant_of
from benchmarks.programs import Program, environment, python
from benchmarks.relays import Figure, Job, start_worker, watch
from benchmarks.rounds import say
from benchmarks.topics import Topics
from catalog import load

__all__ = ["Case", "Curve", "curves", "run", "run_again"]

_IDLE_S = 10.0
_SETTLE_S = 8.0
_ONCE = 1_000_000
"""A case of more events is measured once: minutes are an average of their own."""


@dataclass(frozen=True, slots=True)
class Case:
    """One point: how many of what, and bytes of payload. Names are short: they become a namespace."""

    events: int = 100_000
    definitions: int = 20
    topics: int = 5
    tenants: int = 1_024
    partitions: int = 6
    payload: int = 300
    workers: int = 1

    def event(self, number: int) -> Event:
        """Event `number` of this case."""
        definition = number % self.definitions
        return Event(
            number,
            f"thing.changed{definition}",
            tenant_of(number // 7, self.tenants),
            id_of(number),
            _payload(self.payload),
        )

    def topic_names(self) -> list[str]:
        """The target topics, without their namespace."""
        return [f"things{topic}" for topic in range(self.topics)]

    def write_catalog(self, folder: Path, namespace: str) -> None:
        """The definitions, as a user writes them."""
        folder.mkdir()
        entries = [
            "[[definitions]]\n"
            f'key = "thing.changed{number}"\nresource_type = "thing"\nevent_type = "changed{number}"\n'
            f'description = "A thing changed."\nowner = "bench"\ntopic = "{namespace}.things{number % self.topics}"\n'
            for number in range(self.definitions)
        ]
        (folder / "things.toml").write_text("\n".join(entries))


@cache
def _payload(size: int) -> bytes:
    draw = random.Random(size)
    text = "".join(draw.choices("abcdefghijklmnopqrstuvwxyz0123456789 ", k=max(1, size - 12)))
    return b'{"note": "%s"}' % text.encode()


class Curve(NamedTuple):
    """What grows: the cases from small to large, and the largest ratio of cost allowed (None: it is reported)."""

    name: str
    cases: Sequence[Case]
    limit: float | None


def curves(top: int) -> list[Curve]:
    """All curves; `top` is the largest backlog."""
    base = Case()
    return [
        Curve(
            "definitions, on 50 topics",  # 50 are the fewest that can fill them
            [replace(base, definitions=n, topics=50) for n in (50, 1_000, 10_000)],
            1.25,
        ),
        Curve("tenants", [replace(base, tenants=n) for n in (1, 1_000, 100_000, 1_000_000)], 1.25),
        Curve("partitions", [replace(base, partitions=n) for n in (1, 6, 16, 64)], 1.25),
        Curve("backlog", [replace(base, events=n) for n in (100_000, 1_000_000, top) if n <= top], 1.25),
        Curve(
            "target topics",  # 100,000 would be 33 for each of 3,000 partitions: what a first event costs
            [replace(base, events=500_000, definitions=n, topics=n) for n in (1, 5, 50, 500)],
            2.0,
        ),
        Curve(
            "payload bytes",
            [
                replace(base, payload=n, events=m)
                for n, m in ((100, 100_000), (1_000, 60_000), (10_000, 20_000))
            ],
            None,
        ),
        Curve("workers, on the same cores", [replace(base, events=300_000, workers=n) for n in (1, 2)], None),
    ]


def run(topics: Topics, top: int, rounds: int) -> dict[str, Any]:
    """Every case, `rounds` times in turns, and what idling costs. Plain data."""
    with tempfile.TemporaryDirectory(prefix="stagepost-scale-") as folder:
        found = [_curve(topics, Path(folder), curve, rounds) for curve in curves(top)]
        return {"curves": found, "idle": _idle(topics, Path(folder)), "top_backlog": top}


def run_again(topics: Topics, former: dict[str, Any], name: str, rounds: int) -> dict[str, Any]:
    """One curve anew, in place of what an earlier run found. Raises `KeyError` where there is none of that name."""
    curve = {curve.name: curve for curve in curves(former["top_backlog"])}[name]
    with tempfile.TemporaryDirectory(prefix="stagepost-scale-") as folder:
        again = _curve(topics, Path(folder), curve, rounds)
    return former | {"curves": [again if one["name"] == name else one for one in former["curves"]]}


def _curve(topics: Topics, folder: Path, curve: Curve, rounds: int) -> dict[str, Any]:
    """The least CPU counts, for noise only adds; where a case is measured once, the median of each, for the least of
    several short runs is no match for the average of a long one."""
    counted = median if any(case.events > _ONCE for case in curve.cases) else min
    figures: list[list[Figure]] = [[] for _ in curve.cases]
    prepared = [_Prepared(topics, folder, case) for case in curve.cases]
    for number in range(rounds):
        for case, taken in zip(prepared, figures, strict=True):
            if number and case.case.events > _ONCE:
                continue
            taken.append(case.measure())
            say(f"{curve.name}: {case.case}: {taken[-1].cpu_us:.1f} µs/event, {taken[-1].rss / 1e6:.0f} MB")
    points = [
        asdict(case)
        | {
            "cpu_us": counted([one.cpu_us for one in taken]),
            "per_s": max(one.per_s for one in taken),
            "rss_mb": max(one.rss for one in taken) / 1e6,
        }
        for case, taken in zip(curve.cases, figures, strict=True)
    ]
    ratio = points[-1]["cpu_us"] / points[0]["cpu_us"]
    return {"name": curve.name, "limit": curve.limit, "ratio": ratio, "points": points}


class _Prepared:
    """A case whose backlog stands on its staging topic."""

    _count = 0

    def __init__(self, topics: Topics, folder: Path, case: Case) -> None:
        _Prepared._count += 1
        self.case = case
        self._topics = topics
        self._folder = folder
        self._namespace = f"scale{_Prepared._count}-{secrets.token_hex(3)}"
        self._catalog = folder / f"catalog{_Prepared._count}"
        case.write_catalog(self._catalog, self._namespace)
        fingerprint = load(str(self._catalog), namespace=self._namespace).fingerprint
        self._names = [f"{self._namespace}.{name}" for name in case.topic_names()]
        topics.create([f"{self._namespace}.staging", *self._names], case.partitions)
        topics.fill(f"{self._namespace}.staging", range(case.events), case.event, fingerprint)

    def measure(self) -> Figure:
        """One verified run of one worker, or of several at once."""
        case, names = self.case, self._names
        self._topics.forget_group(f"{self._namespace}-pipeline")
        before = self._topics.ends(names, case.partitions)
        with ExitStack() as stack:
            programs = [stack.enter_context(self.start(number)) for number in range(case.workers)]
            workers = _Workers(programs)
            figure = watch(self._topics, workers, names, before, case.events, partitions=case.partitions)
        after = self._topics.ends(names, case.partitions)
        self._topics.verify(before, after, range(case.events), case.event)
        return figure

    def start(self, number: int) -> Program:
        """Start a worker; `number` tells it from others of this case."""
        folder = self._folder / f"{self._namespace}-{number}"
        folder.mkdir(exist_ok=True)
        job = Job(self._topics.servers, self.case.events, folder)
        partitions = str(self.case.partitions)
        return start_worker(
            job,
            NAMESPACE=self._namespace,
            CATALOG=str(self._catalog),
            TOPIC_PARTITIONS=partitions,
            # The broker shares these cores: its first write to thousands of partitions is no sick target.
            TARGET_SOFT_TIMEOUT_S="60",
        )


class _Workers:
    """Several programs, looked at as one."""

    def __init__(self, programs: Sequence[Program]) -> None:
        self._programs = programs

    def cpu(self) -> float:
        """Of all."""
        return sum(program.cpu() for program in self._programs)

    def rss(self) -> int:
        """Of the largest."""
        return max(program.rss() for program in self._programs)

    def check(self) -> None:
        """All run."""
        for program in self._programs:
            program.check()

    def tail(self) -> str:
        """Of the first."""
        return self._programs[0].tail()


def _idle(topics: Topics, folder: Path) -> dict[str, float]:
    """Shares of a core that a worker and a service's stager use while nothing happens."""
    case = _Prepared(topics, folder, Case(events=1_000))
    case.measure()
    stager = Program(
        python("benchmarks.ways.idle", topics.servers, "idle"), environment(), folder / "idle.log"
    )
    with case.start(0) as worker, stager:
        time.sleep(_SETTLE_S)
        before = worker.cpu(), stager.cpu(), time.monotonic()
        time.sleep(_IDLE_S)
        took = time.monotonic() - before[2]
        return {
            "worker": (worker.cpu() - before[0]) / took,
            "stager": (stager.cpu() - before[1]) / took,
        }
