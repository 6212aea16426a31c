"""A run: load and faults together, then quiet, then the reckoning.

Owns: the order of a run, what is logged, the outcome and whether it counts. Must not know: how a fault is made.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from aiokafka.errors import KafkaError

from pipeline.kafka.admin import committed
from pipeline.kafka.connection import Connection
from tests.chaos.faults import FAULTS, can_strike
from tests.chaos.journal import durable_ids
from tests.chaos.rig import CATALOG, Rig
from tests.chaos.schedule import Strike, strikes
from tests.kafka_client import wait_until
from tests.process_harness import ROOT

__all__ = ["Outcome", "Plan", "late_ids", "run", "shown"]

_QUIET_S = 240.0
_ASK_S = 10.0


@dataclass(frozen=True)
class Plan:
    """What a run does: `seed` decides everything else about its faults. It lasts until `events` are staged and every
    lane has made `strikes` faults, at `rate` events a second."""

    seed: int
    events: int
    rate: float
    tenants: int
    lanes: Sequence[Sequence[str]]
    strikes: int
    gap_s: tuple[float, float]


@dataclass
class Outcome:
    """What came of it. `sound`: nothing lost, nothing out of order. `counts`: enough went wrong meanwhile."""

    faults: Counter[str] = field(default_factory=Counter)
    hits: int = 0
    """Faults that struck while staging records were unfinished."""
    ledger: dict[str, Any] = field(default_factory=dict)
    unplanned: list[str] = field(default_factory=list)
    durable: int = 0
    """Events that services were told are durable, by their own account."""
    absent: list[str] = field(default_factory=list)
    """Those of them that are not on staging."""
    late: list[str] = field(default_factory=list)
    """Events that came on staging after a later one of their tenant (S6)."""
    missing: list[str] = field(default_factory=list)
    """What the ledger misses, but for what stood on a target when it was deleted."""
    seconds: float = 0.0

    @property
    def duplicates(self) -> int:
        """Records that came again, on staging or on a target."""
        counts = self.ledger["counts"]
        return int(counts["double"]) + int(counts["staged_again"])

    @property
    def sound(self) -> bool:
        """Whether nothing is missing, pending or out of order."""
        counts = self.ledger["counts"]
        left = [counts[name] for name in ("out_of_order", "pending", "parked", "unjudged", "foreign")]
        return not any(left) and not self.missing and not self.absent and not self.late

    @property
    def counting(self) -> bool:
        """Whether the run was hard enough to say anything."""
        return self.hits >= 5 and self.duplicates >= 1


def run(plan: Plan, folder: Path, log: Callable[[str], None]) -> Outcome:
    """Make the run (blocks, for minutes). Raises an `AssertionError` where things do not come to rest afterwards."""
    started = time.monotonic()

    def say(what: str) -> None:
        log(f"{time.monotonic() - started:7.1f} s  {what}")

    outcome = Outcome()
    say(f"seed {plan.seed}: {plan.events:,} events, {plan.rate:g} a second")
    with Rig(f"c{plan.seed}", folder, say, rate=plan.rate, tenants=plan.tenants) as rig:
        say("all is up")
        _strike(plan, rig, outcome, say)
        say("no more faults; coming to rest")
        _come_to_rest(rig, say)
        _reckon(rig, outcome, say)
    outcome.seconds = time.monotonic() - started
    return outcome


def _strike(plan: Plan, rig: Rig, outcome: Outcome, say: Callable[[str], None]) -> None:
    failed = threading.Event()

    def lane(faults: Iterable[Strike]) -> None:
        for number, strike in enumerate(faults):
            if number >= plan.strikes and rig.witness.count >= plan.events:
                return
            if failed.wait(strike.after_s):
                return
            if can_strike(rig, strike.fault):
                try:
                    _make(rig, strike, outcome, say)
                except BaseException:
                    failed.set()
                    raise

    with ThreadPoolExecutor(len(plan.lanes)) as pool:
        lanes = [pool.submit(lane, strikes(plan.seed, faults, gap_s=plan.gap_s)) for faults in plan.lanes]
        for done in as_completed(lanes):
            done.result()
    wait_until(lambda: rig.witness.count >= plan.events, _QUIET_S, f"{plan.events:,} events")


def _make(rig: Rig, strike: Strike, outcome: Outcome, say: Callable[[str], None]) -> None:
    unfinished = _unfinished(rig)
    outcome.faults[strike.fault] += 1
    outcome.hits += unfinished > 0
    say(f"{strike.fault} ({unfinished:,} staged and not committed)")
    FAULTS[strike.fault](rig, strike)
    say(f"  after {strike.fault}: {rig.witness.count:,} staged")


def _unfinished(rig: Rig) -> int:
    """Staging records that no worker has committed; 0 where no broker says so."""
    try:
        return max(0, rig.witness.count - sum(_committed(rig).values()))
    except (KafkaError, TimeoutError):  # the coordinator is down: the fault strikes all the same
        return 0


def _committed(rig: Rig) -> dict[int, int]:
    # Not by librdkafka: its admin client crashes, now and then, while coordinators come and go.
    async def ask() -> dict[int, int]:
        async with asyncio.timeout(_ASK_S):
            servers = tuple(rig.kafka.bootstrap.split(","))
            group = f"{rig.namespace}-pipeline"
            return await committed(Connection(servers, "chaos"), group, rig.topic("staging"))

    return asyncio.run(ask())


def _come_to_rest(rig: Rig, say: Callable[[str], None]) -> None:
    """Nothing new is staged; all that was durable gets to staging, and the worker commits it all."""
    rig.service.quiet()
    rig.callers.stop()
    rig.stranger.stop()
    durable = _durable(rig)
    deadline = time.monotonic() + _QUIET_S
    while not durable <= rig.witness.seen.keys() and time.monotonic() < deadline:
        time.sleep(0.2)
    absent = sorted(durable - rig.witness.seen.keys())
    say(f"{len(durable):,} events are durable, {len(absent):,} of them not staged {absent[:5]}")

    def all_committed() -> bool:
        rig.witness.catch_up()
        return sum(_committed(rig).values()) == rig.witness.count

    wait_until(all_committed, _QUIET_S, "the worker to commit everything")
    wait_until(lambda: not _waiting(rig), _QUIET_S, "what is parked to be delivered")
    say("all is committed")
    rig.stop_supervising()
    rig.service.send(signal.SIGTERM)
    assert rig.service.wait(60) == 0
    assert rig.gunicorn.terminate() == 0
    assert rig.worker.terminate() == 0


def _durable(rig: Rig) -> set[str]:
    return {*durable_ids(rig.service.journals), *rig.callers.ids}


def _waiting(rig: Rig) -> int:
    counts = _ledger(rig)["counts"]
    return int(counts["parked"]) + int(counts["pending"])


def _ledger(rig: Rig) -> dict[str, Any]:
    """What `faust -A pipeline ledger verify --json` says."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("STREAMING_")}
    done = subprocess.run(
        [sys.executable, "-m", "faust", "-A", "pipeline", "ledger", "verify", "--json"],
        cwd=ROOT,
        env=inherited
        | {
            "STREAMING_BROKERS": rig.kafka.bootstrap,
            "STREAMING_CATALOG": CATALOG,
            "STREAMING_CLOUDEVENTS_SOURCE": "/chaos",
            "STREAMING_NAMESPACE": rig.namespace,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _reckon(rig: Rig, outcome: Outcome, say: Callable[[str], None]) -> None:
    outcome.unplanned = rig.unplanned
    outcome.ledger = _ledger(rig)
    rig.witness.catch_up()
    durable = _durable(rig)
    outcome.durable = len(durable)
    outcome.absent = sorted(durable - rig.witness.seen.keys())
    outcome.late = late_ids(rig.witness.seen)
    outcome.missing = [
        found["id"]
        for found in outcome.ledger["missing"]
        if found["id"] not in rig.deleted.get(rig.topic(found["definition"]), ())
    ]
    taken = int(outcome.ledger["counts"]["missing"]) - len(outcome.missing)
    say(f"the ledger: {outcome.ledger['counts']}; {taken:,} stood on a target when it was deleted")


def late_ids(seen: dict[str, tuple[int, int]]) -> list[str]:
    """Of each tenant of one service process, calls did not overlap: so staging has them in the order of calls (S6)."""
    late: list[str] = []
    last: dict[str, tuple[int, int]] = {}
    by_number = sorted(
        (tenant, int(number), event_id)
        for event_id in seen
        if event_id.count("/") == 2
        for tenant, _, number in [event_id.rpartition("/")]
    )
    for tenant, _, event_id in by_number:
        place = seen[event_id]
        if tenant in last and place < last[tenant]:
            late.append(event_id)
        last[tenant] = max(place, last.get(tenant, place))
    return late


def shown(plan: Plan) -> str:
    """The first strikes of each lane, as the seed draws them."""
    return "\n".join(
        f"  {strike.after_s:4.1f} s later  {strike.fault} ({strike.for_s:.1f} s, {strike.choice})"
        for faults in plan.lanes
        for strike in islice(strikes(plan.seed, faults, gap_s=plan.gap_s), plan.strikes)
    )
