"""What can be done to one broker, whatever runs it.

Owns: the wait until it answers, and the order of a restart. Must not know: processes and containers.
"""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod

from devtools.kafka import probe
from devtools.kafka.config import Address
from devtools.kafka.errors import BrokerFailed

_POLL_S = 0.05
_TAIL_LINES = 30
_ENTRY = re.compile(r"\] (INFO|WARN|ERROR|FATAL) ")


class Node(ABC):
    """One broker (and controller) of a cluster. Its `address` and data outlast its process. All blocks."""

    def __init__(self, address: Address) -> None:
        self.address = address

    @property
    def bootstrap(self) -> str:
        """`host:port` of this node alone."""
        return f"127.0.0.1:{self.address.port}"

    @property
    @abstractmethod
    def running(self) -> bool:
        """Whether the process is there; also true while it is paused or still starting."""

    @abstractmethod
    def start(self) -> None:
        """Start the process; does not wait until it answers. Nothing happens if it runs already."""

    @abstractmethod
    def kill(self) -> None:
        """Kill the process (SIGKILL), as a crash would, and wait until it is gone."""

    @abstractmethod
    def stop(self, timeout_s: float = 60.0) -> None:
        """Ask the process to shut down in order (SIGTERM) and wait; raises `BrokerFailed` if it does not."""

    @abstractmethod
    def pause(self) -> None:
        """Freeze the process (SIGSTOP): connections stay open, nothing answers."""

    @abstractmethod
    def resume(self) -> None:
        """Let a paused process go on (SIGCONT)."""

    @abstractmethod
    def log_text(self) -> str:
        """Return what the broker has logged."""

    def restart(self, timeout_s: float = 60.0) -> None:
        """Stop in order if running, start on the same port with the same data, wait until it answers.

        A single node only: of three, one alone does not answer before a second is up. Start them with
        `start`, then use `Cluster.wait_ready`.
        """
        self.stop(timeout_s)
        self.start()
        self.wait_ready(timeout_s=timeout_s)

    def wait_ready(self, expected: frozenset[int] = frozenset(), timeout_s: float = 60.0) -> None:
        """Wait until this broker answers and knows itself and the `expected` node ids.

        Raises `BrokerFailed` with the end of the log if it ends, or is not ready within `timeout_s`.
        """
        wanted = expected | {self.address.node_id}
        deadline = time.monotonic() + timeout_s
        while not wanted <= probe.known_brokers(self.address.port):
            if not self.running:
                raise self.failed("has ended")
            if time.monotonic() > deadline:
                raise self.failed(f"was not ready within {timeout_s:g} s")
            time.sleep(_POLL_S)

    def failed(self, what: str) -> BrokerFailed:
        """Return the error that says `what` happened to this node, with the end of its log."""
        tail = "\n".join(telling_lines(self.log_text())[-_TAIL_LINES:])
        return BrokerFailed(f"broker {self.address.node_id} {what}", tail)


def telling_lines(log: str) -> list[str]:
    """Return the lines of a broker's log without its INFO entries, which bury what went wrong.

    Lines that begin no entry, as of a stack trace, go with the entry before. All lines if none is left.
    """
    lines, kept, keeping = log.splitlines(), [], True
    for line in lines:
        entry = _ENTRY.search(line)
        keeping = entry[1] != "INFO" if entry else keeping
        if keeping:
            kept.append(line)
    return kept or lines
