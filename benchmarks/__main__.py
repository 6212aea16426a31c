"""The command line: `python -m benchmarks run|check|baseline|scale`; `make bench`, `bench-check`, `bench-scale`.

    run        all contenders, five rounds; writes results.json and the page RESULTS.md with its plots
    check      a short run; exit status 1 where a ratio is worse than baseline.json by more than a quarter
    baseline   the same short run, written to baseline.json
    scale      growth curves; writes scale.json and the page SCALE.md

Needs nothing running: it starts a broker of its own unless STREAMING_TEST_BROKERS names one.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from benchmarks import check, page, rounds, scale
from benchmarks.results import Results
from benchmarks.topics import Topics

_HERE = Path(__file__).parent
_CHECKED = (
    "worker CPU/event ÷ floor",
    "`stage()`, 64 callers: CPU/event ÷ plain aiokafka `send()`",
    "lone `stage()` p50 ÷ aiokafka `send_and_wait` (linger 0)",
    "`stage_blocking()` p50 ÷ `stage()` p50",
    "outbox, 64 callers: CPU/event ÷ bare group commit of prebuilt rows",
)
"""Ratios of CPU, and of blocks that take turns: wall figures of separate runs are noise on a busy machine."""


def main() -> int:
    """Run one command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What it costs, side by side.")
    parser.add_argument("command", choices=("run", "check", "baseline", "scale"))
    parser.add_argument("--rounds", type=int, help="instead of the plan's")
    parser.add_argument("--out", type=Path, default=_HERE, help="folder for results")
    parser.add_argument(
        "--backlog", type=int, default=10_000_000, help="the largest backlog of `scale`, events"
    )
    parser.add_argument("--curve", help="measure this curve of scale.json anew, and keep the others")
    options = parser.parse_args()
    plan = rounds.FULL if options.command == "run" else rounds.CHECK
    if options.rounds:
        plan = dataclasses.replace(plan, rounds=options.rounds)
    with rounds.cluster() as servers:
        if options.command == "run":
            return _write(rounds.run(servers, plan), options.out)
        if options.command == "check":
            return check.check(lambda: rounds.run(servers, plan).ratios())
        if options.command == "scale":
            count = options.rounds or 2
            if options.curve:
                former = json.loads((options.out / "scale.json").read_text())
                found = scale.run_again(Topics(servers), former, options.curve, count)
            else:
                found = scale.run(Topics(servers), options.backlog, count)
            text = json.dumps(rounds.machine() | found, indent=1, ensure_ascii=False)
            (options.out / "scale.json").write_text(text + "\n")
            (options.out / "SCALE.md").write_text(page.scale_page(rounds.machine(), found))
            return 0
        ratios = rounds.run(servers, plan).ratios()
    kept = {name: round(ratios[name], 3) for name in _CHECKED}
    check.BASELINE.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    return 0


def _write(results: Results, folder: Path) -> int:
    (folder / "results.json").write_text(json.dumps(results.as_json(), indent=1, ensure_ascii=False) + "\n")
    page.write(results, folder)
    sys.stdout.write(page.ratios_table(results) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
