"""`make chaos`: the long run. `--seed` replays the schedule of an earlier one.

Owns: the command line and the report. Must not know: how a run is made.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

from tests.chaos.run import Plan, run, shown
from tests.chaos.schedule import BROKER_FAULTS, PROCESS_FAULTS

_SEEDS = 1_000_000


def main() -> int:
    """One run, or several; exit status 0 only where each was sound and counts."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Real fire, on real brokers.")
    parser.add_argument("--seed", type=int, help="the seed of an earlier run (drawn)")
    parser.add_argument("--events", type=int, default=100_000, help="events a run at least (100,000)")
    parser.add_argument("--rate", type=float, default=700, help="events a second (700)")
    parser.add_argument("--runs", type=int, default=1, help="how many, with seeds that follow (1)")
    options = parser.parse_args()
    first = options.seed if options.seed is not None else secrets.randbelow(_SEEDS)
    good = [_one(seed, options) for seed in range(first, first + options.runs)]
    return 0 if all(good) else 1


def _one(seed: int, options: argparse.Namespace) -> bool:
    plan = Plan(
        seed,
        options.events,
        options.rate,
        tenants=60,
        lanes=(PROCESS_FAULTS, BROKER_FAULTS),
        strikes=max(map(len, (PROCESS_FAULTS, BROKER_FAULTS))),
        gap_s=(1.0, 5.0),
    )
    print(shown(plan), flush=True)
    with tempfile.TemporaryDirectory(prefix="stagepost-chaos-") as folder:
        outcome = run(plan, Path(folder), lambda line: print(line, flush=True))
    print(f"seed          {seed}")
    print(f"seconds       {outcome.seconds:.0f}")
    print(f"faults        {sum(outcome.faults.values())}, {outcome.hits} with unfinished batches")
    for name, count in sorted(outcome.faults.items()):
        print(f"              {count:3} {name}")
    print(f"unplanned     {outcome.unplanned or 'no process ended by itself'}")
    print(f"durable       {outcome.durable:,} by the services' own account")
    print(f"staged        {outcome.ledger['counts']['staged']:,}")
    print(f"duplicates    {outcome.duplicates:,}")
    print(f"missing       {outcome.missing or 0}")
    print(f"not staged    {outcome.absent or 0}")
    print(f"out of order  {outcome.ledger['out_of_order'] or 0}, on staging {outcome.late or 0}")
    print(f"the run       {'is sound' if outcome.sound else 'FAILED'}", end=", ")
    print("and counts" if outcome.counting else "but was not hard enough to count", flush=True)
    return outcome.sound and outcome.counting


if __name__ == "__main__":
    sys.exit(main())
