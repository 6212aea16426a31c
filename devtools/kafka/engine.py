"""What a cluster asks of the thing that runs its brokers.

Owns: the interface. Must not know: which engines there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from devtools.kafka.config import Address, Options
from devtools.kafka.node import Node
from devtools.kafka.scratch import Scratch


class Engine(Protocol):
    """Makes the nodes of one cluster and ends them."""

    name: str
    """`jvm` or `docker`, for messages."""

    def create(self, addresses: Sequence[Address], options: Options, scratch: Scratch) -> tuple[Node, ...]:
        """Prepare a node for each address, none of them started. Raises `BrokerFailed` or `NoBroker`."""
        ...

    def close(self) -> None:
        """End every node that was prepared, with all it left outside of the scratch folder; repeatable."""
        ...
