"""The command line: `python -m devtools.kafka start|stop|status|run`.

Owns: arguments, output, exit statuses. Must not know: how a broker is run.

    start            start a cluster in the background, unless it runs; print its address
    stop             end it
    status           say which clusters run and how many of their brokers answer
    run -- CMD...    start a broker, run CMD with its address in the environment, end it after CMD

Where STREAMING_TEST_BROKERS is set, `start` and `run` use those brokers and start none.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from catalog.errors import StagepostError
from devtools.kafka import probe, service
from devtools.kafka.choice import GIVEN, given
from devtools.kafka.cluster import Cluster

_CLIENTS = "STREAMING_BROKERS"
_NOT_FOUND = 127


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 failed or not running, 2 wrong usage."""
    options = _parser().parse_args(argv)
    try:
        status: int = options.command(options)
    except StagepostError as error:
        print(f"kafka: {error}", file=sys.stderr)
        return 1
    return status


def _start(options: argparse.Namespace) -> int:
    there = given()
    if there is not None:
        print(f"kafka: {GIVEN} is set; no broker was started", file=sys.stderr)
        facts: Mapping[str, object] = {"bootstrap": there.bootstrap}
    else:
        facts = asdict(service.start(options.name, options.nodes, options.engine))
    print(json.dumps(facts) if options.json else facts["bootstrap"])
    return 0


def _stop(options: argparse.Namespace) -> int:
    if not service.stop(options.name):
        print(f"kafka: no cluster {options.name!r} is running", file=sys.stderr)
        return 1
    return 0


def _status(options: argparse.Namespace) -> int:
    """Print all clusters; status 0 if there are any and all their brokers answer."""
    found = [(one, _answering(one.bootstrap)) for one in service.running()]
    if options.json:
        print(json.dumps([{**asdict(one), "answering": up} for one, up in found]))
    for one, up in () if options.json else found:
        print(f"{one.name}: {one.bootstrap} (Kafka {one.kafka}, {one.engine}; {up} of {one.nodes} answer)")
    if not found:
        print("kafka: no cluster is running", file=sys.stderr)
    return 0 if found and all(up == one.nodes for one, up in found) else 1


def _answering(bootstrap: str) -> int:
    ports = (int(address.rpartition(":")[2]) for address in bootstrap.split(","))
    return sum(bool(probe.known_brokers(port)) for port in ports)


def _run(options: argparse.Namespace) -> int:
    """Run a command beside a broker; its status, 128+n if signal n ended it, 127 if it is not there."""
    command: list[str] = options.cmd
    there = given()
    signal.signal(signal.SIGTERM, _exit)
    with nullcontext(there) if there is not None else Cluster(options.nodes, engine=options.engine) as used:
        environment = {**os.environ, GIVEN: used.bootstrap, _CLIENTS: used.bootstrap}
        try:
            child = subprocess.Popen(command, env=environment)
        except OSError as error:
            print(f"kafka: {command[0]!r} cannot be run: {error.strerror}", file=sys.stderr)
            return _NOT_FOUND
        return _wait(child)


def _wait(child: subprocess.Popen[bytes]) -> int:
    """Wait for the command and hand a SIGTERM on to it; a Ctrl-C reaches it by itself, from the terminal."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _frame: child.send_signal(number))
    status = child.wait()
    return status if status >= 0 else 128 - status


def _exit(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def _hold(options: argparse.Namespace) -> int:
    service.hold(options.name, options.nodes, options.engine, options.root)
    return 0


def _name(text: str) -> str:
    """Accept what can be part of a file name."""
    if re.fullmatch(r"[a-z0-9-]{1,40}", text) is None:
        raise argparse.ArgumentTypeError("a name has 1 to 40 lower-case letters, digits and hyphens")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m devtools.kafka", description="A real Kafka, on this machine."
    )
    commands = parser.add_subparsers(required=True, metavar="start|stop|status|run")
    name = argparse.ArgumentParser(add_help=False)
    name.add_argument("--name", type=_name, default="dev", help="which of several clusters (dev)")
    as_json = argparse.ArgumentParser(add_help=False)
    as_json.add_argument("--json", action="store_true", help="print JSON")
    kind = argparse.ArgumentParser(add_help=False)
    kind.add_argument("--nodes", type=int, default=1, help="how many brokers (1)")
    kind.add_argument(
        "--engine", choices=("auto", "docker", "jvm"), default="auto", help="what runs them (auto)"
    )

    start = commands.add_parser(
        "start", parents=[name, kind, as_json], help="start a cluster in the background"
    )
    start.set_defaults(command=_start)
    stop = commands.add_parser("stop", parents=[name], help="end a cluster that `start` started")
    stop.set_defaults(command=_stop)
    status = commands.add_parser("status", parents=[as_json], help="say which clusters run")
    status.set_defaults(command=_status)
    run = commands.add_parser("run", parents=[kind], help="run a command beside a broker of its own")
    run.add_argument("cmd", nargs="+", metavar="-- CMD", help="the command and its arguments")
    run.set_defaults(command=_run)
    hold = commands.add_parser("hold")  # what `start` runs in the background
    hold.add_argument("name")
    hold.add_argument("nodes", type=int)
    hold.add_argument("engine")
    hold.add_argument("root", type=Path)
    hold.set_defaults(command=_hold)
    return parser


if __name__ == "__main__":
    sys.exit(main())
