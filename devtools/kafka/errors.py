"""The errors of the broker tool.

Owns: what can keep a broker from starting, as facts and as an instruction. Must not know: how brokers start.
"""

from __future__ import annotations

from catalog.errors import StagepostError


class NoBroker(StagepostError):
    """No broker can be had on this machine; `reason` says what is missing and what to install."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"no Kafka broker can be had: {reason}")


class BrokerFailed(StagepostError):
    """A broker ended, or did not do in time what it was asked to. `tail` holds the last lines of its log."""

    def __init__(self, what: str, tail: str) -> None:
        self.what = what
        self.tail = tail
        super().__init__(f"{what}; correct what the end of its log says:\n{tail}")

    @property
    def address_taken(self) -> bool:
        """Whether another program held one of the broker's ports, so that other ports may do."""
        said = self.tail.lower()
        return "address already in use" in said or "port is already allocated" in said
