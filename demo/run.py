"""One run of the demonstration: two services and a foreign producer beside a worker; then the account.

Owns: which programs there are, with which settings. Must not know: who runs the broker, how long a worker lives.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from catalog import OwnTopics, load
from demo import ledger
from demo.accounts import Account, account
from demo.programs import Program, tail
from demo.progress import Watched, say, watch
from demo.readback import read_back
from demo.table import table
from demo.topics import Topics

__all__ = [
    "CATALOG",
    "WORKER",
    "Run",
    "Worker",
    "account_of",
    "free_port",
    "stage_and_watch",
    "worker_command",
    "worker_settings",
]

CATALOG: Final = "catalog.examples.flights"
WORKER: Final = "worker"


class Worker(Protocol):
    """A worker that somebody else started."""

    def check(self) -> None:
        """Raise `ProgramFailed` unless it runs."""
        ...


class Run(NamedTuple):
    """Where a run happens: the brokers, a namespace of its own, a folder for ledgers and logs."""

    servers: str
    namespace: str
    folder: Path

    @classmethod
    def new(cls, servers: str, folder: Path) -> Run:
        """A run that no other one meets on these brokers."""
        return cls(servers, f"demo-{secrets.token_hex(3)}", folder)

    def settings(self, source: str) -> dict[str, str]:
        """Return the settings that every program of the run shares."""
        return {
            "STREAMING_BROKERS": self.servers,
            "STREAMING_NAMESPACE": self.namespace,
            "STREAMING_CATALOG": CATALOG,
            "STREAMING_CLOUDEVENTS_SOURCE": source,
            "STREAMING_OUTBOX_DIR": str(self.folder / "outbox"),
        }

    def log(self, name: str) -> Path:
        """Return the log file of a program of the run."""
        return self.folder / f"{name}.log"

    @property
    def ledgers(self) -> list[Path]:
        """The ledger files, by name."""
        return sorted(self.folder.glob(f"*{ledger.SUFFIX}"))


def worker_command() -> list[str]:
    """Return the Procfile's command, with the program of this environment."""
    faust = str(Path(sys.executable).with_name("faust"))
    return [faust, "-A", "pipeline", "-L", "uvloop", "worker", "-l", "info"]


def worker_settings(run: Run, web_port: int) -> dict[str, str]:
    """Return the worker's settings: its data in the run's folder, its pages on the given port."""
    more = {"STREAMING_DATA_DIR": str(run.folder / "data"), "STREAMING_WEB_PORT": str(web_port)}
    return run.settings("/demo/worker") | more


def free_port() -> int:
    """Return a port of this machine that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def producers(run: Run, flights: int) -> list[Program]:
    """The two services and the foreign producer."""
    staging = OwnTopics(run.namespace).staging
    return [
        _program(run, "newark-kennedy", "demo.service_asyncio", str(flights), "EWR", "JFK"),
        _program(run, "la-guardia", "demo.service_threads", str(flights), "LGA"),
        _program(run, "foreign", "demo.foreign", run.servers, staging),
    ]


def _program(run: Run, name: str, module: str, *arguments: str) -> Program:
    book = str(run.folder / f"{name}{ledger.SUFFIX}")
    command = [sys.executable, "-m", module, book, *arguments]
    return Program(name, command, run.settings(f"/demo/{name}"), run.log(name))


def stage_and_watch(run: Run, flights: int, start: float, worker: Worker) -> Watched:
    """Stage the first `flights` flights from three programs and watch until the worker has dealt with all.

    Raises `ProgramFailed` where the worker ends meanwhile, or a program that stages fails.
    """
    with ExitStack() as stack:
        staging = [stack.enter_context(program) for program in producers(run, flights)]

        def staging_done() -> bool:
            worker.check()
            done = [program.done for program in staging]  # each is asked: any may have failed
            return all(done)

        return asyncio.run(_watch(run, staging_done, start))


async def _watch(run: Run, staging_done: Callable[[], bool], start: float) -> Watched:
    async with Topics.open(run.servers, run.namespace) as topics:
        return await watch(topics, staging_done, start)


def account_of(run: Run, watched: Watched) -> int:
    """Read every topic of the run back, print the table, return the exit status: 1 unless all is accounted for."""
    found = asyncio.run(_account(run))
    say("\n" + table(found, watched, run.namespace))
    if not watched.settled:
        say(
            f"\nthe worker stands still before it has committed all; its log ends with\n{tail(run.log(WORKER))}"
        )
    return 0 if found.complete and watched.settled else 1


async def _account(run: Run) -> Account:
    async with Topics.open(run.servers, run.namespace) as topics:
        found = await read_back(run.servers, topics.own, await topics.ends())
        entries = [entry for path in run.ledgers for entry in ledger.read(path)]
        return account(entries, *found, load(CATALOG, namespace=run.namespace), topics.own)
