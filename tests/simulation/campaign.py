"""Many worlds, one after the other; a seed that fails is named, and replays exactly.

Owns: running seeds, the report. Must not know: what a world is made of.
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys
import warnings

from pipeline.client.stager import load_catalog
from pipeline.settings import Settings
from tests.simulation.service_world import ServiceWorld
from tests.simulation.special_worlds import ApartWorld, FullWorld, SkewWorld
from tests.simulation.staged_events import CATALOG, NAMESPACE
from tests.simulation.worker_world import WorkerWorld
from tests.simulation.world import Outcome, World

__all__ = ["main"]

KINDS: dict[str, type[World]] = {
    kind.kind: kind for kind in (WorkerWorld, ServiceWorld, ApartWorld, SkewWorld, FullWorld)
}


def main() -> int:
    """Run what the command line asks for; 1 where a seed fails."""
    parser = argparse.ArgumentParser(description="Run worlds of these seeds.")
    parser.add_argument("first", type=int)
    parser.add_argument("count", type=int, nargs="?", default=1)
    parser.add_argument("--kind", choices=KINDS, help="of the worlds; without it the seed says")
    parser.add_argument("--log", help="log level of everything in the worlds, on standard error")
    parser.add_argument("--all", action="store_true", help="go on after a failing seed")
    parser.add_argument("--each", action="store_true", help="say what became of every seed")
    options = parser.parse_args()
    if options.log:
        logging.basicConfig(level=options.log.upper())
    else:
        logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda _: None  # the dead cannot always be unwound without a word
    settings = Settings(
        brokers=("node-0:9092", "node-1:9092", "node-2:9092"),
        catalog=CATALOG,
        cloudevents_source="//sim",
        namespace=NAMESPACE,
        topic_partitions=2,
        compression="none",
        cb_timeout_s=3,
    )
    catalog = load_catalog(settings)
    gc.disable()
    gc.collect()
    gc.freeze()
    failed = events = doubles = 0
    for seed in range(options.first, options.first + options.count):
        outcome = (KINDS[options.kind] if options.kind else kind_of(seed))(seed, settings, catalog).run()
        events += outcome.events
        doubles += outcome.doubles
        if outcome.violation is not None:
            failed += 1
            _report(outcome)
            if not options.all:
                break
        elif options.each or options.count == 1:
            print(f"seed {seed} holds: {outcome}")
    print(f"{options.count} seeds from {options.first}, {events} events, {doubles} doubles, {failed} failed")
    return 1 if failed else 0


def kind_of(seed: int) -> type[World]:
    """What kind of world a seed is: mostly services, whose worlds take the least time."""
    if seed % 5:
        return ServiceWorld
    return (WorkerWorld, ApartWorld, WorkerWorld, SkewWorld, SkewWorld, FullWorld)[seed // 5 % 6]


def _report(outcome: Outcome) -> None:
    print(f"seed {outcome.seed} ({outcome.kind}) FAILS: {outcome.violation!r}\n  faults: {outcome.faults}")
    print(f"  again: python -m tests.simulation {outcome.seed} --kind {outcome.kind}")


if __name__ == "__main__":
    sys.exit(main())
