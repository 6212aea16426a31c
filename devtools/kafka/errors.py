"""The errors of the broker tool.

Owns: what can keep a broker from starting, as facts and as an instruction. Must not know: how brokers start.
"""

from __future__ import annotations

from pathlib import Path

from catalog.errors import StagepostError


class NoBroker(StagepostError):  # noqa: N818 - named after the fact
    """No broker can be had on this machine; `reason` says what is missing and what to install."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"no Kafka broker can be had: {reason}")


class BrokerFailed(StagepostError):  # noqa: N818 - named after the fact
    """A broker ended or was not ready in time. `tail` holds the last lines of its log."""

    def __init__(self, what: str, log: Path, tail: str) -> None:
        self.what = what
        self.log = log
        self.tail = tail
        super().__init__(f"{what}; the end of its log ({log}):\n{tail}")

    @property
    def address_taken(self) -> bool:
        """Whether another program held one of the broker's ports, so that other ports may do."""
        return "Address already in use" in self.tail
