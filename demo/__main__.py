"""The command line of the demonstration: `python -m demo run|up|down`; `make demo|up|down` call it.

Owns: arguments, exit statuses, what stands beside a run: broker, worker, scratch folder.

    run    stage flights through a broker and a worker of their own, account for every event, end both
    up     the same, and leave broker and worker running
    down   end what `up` left running

Exit status: 0 all accounted for, 1 not, or something failed, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from catalog.errors import StagepostError
from demo import flights, standing
from demo.programs import Program
from demo.progress import say
from demo.run import WORKER, Run, account_of, free_port, stage_and_watch, worker_command, worker_settings
from demo.topics import Topics
from devtools.kafka import brokers
from devtools.kafka.choice import given

FLIGHTS: Final = 20_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m demo", description="Real flights through the whole pipeline."
    )
    parser.add_argument("command", choices=("run", "up", "down"))
    parser.add_argument("--flights", type=int, default=FLIGHTS, help=f"how many flights ({FLIGHTS:,})")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _exit)
    try:
        if options.command == "down":
            return standing.down()
        flights.data_folder()  # asked before anything is started
        return standing.up(options.flights) if options.command == "up" else run(options.flights)
    except StagepostError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted; everything is ended", file=sys.stderr)
        return 130


def run(count: int) -> int:
    """One run; nothing of it is left, however it ends."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="stagepost-demo-") as folder, brokers() as kafka:
        this = Run.new(kafka.bootstrap, Path(folder))
        say(f"{time.monotonic() - start:5.1f} s   broker at {kafka.bootstrap}, namespace {this.namespace}")
        try:
            settings = worker_settings(this, free_port())
            with Program(WORKER, worker_command(), settings, this.log(WORKER)) as worker:
                watched = stage_and_watch(this, count, start, worker)
                return account_of(this, watched)
        finally:
            if given() is not None:
                asyncio.run(_delete_topics(this))


async def _delete_topics(this: Run) -> None:
    async with Topics.open(this.servers, this.namespace) as topics:
        await topics.delete()


def _exit(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
