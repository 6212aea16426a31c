"""Which faults strike, and when: all of it follows from the seed. Pure.

Owns: the faults' names, their lanes, the draw. Must not know: how a fault is made.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["BROKER_FAULTS", "PROCESS_FAULTS", "Strike", "strikes"]

PROCESS_FAULTS = (
    "kill worker",
    "kill service",
    "kill two gunicorn processes",
    "terminate worker",
    "fill outbox disk",
    "fill worker disk",
)
"""What happens to our own processes; one at a time."""
BROKER_FAULTS = (
    "kill broker",
    "freeze broker",
    "freeze broker, kill worker",
    "restart brokers in turn",
    "cut targets off",
    "stall targets",
    "stall staging",
    "revoke ACL",
    "delete target",
)
"""What happens to Kafka and the ways to it; one at a time, and beside the others."""


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault: `after_s` seconds after the end of the one before it in its lane, for `for_s` seconds where it has a
    length; `choice` picks its victim."""

    fault: str
    after_s: float
    for_s: float
    choice: int


def strikes(seed: int, faults: Sequence[str], *, gap_s: tuple[float, float]) -> Iterator[Strike]:
    """Endless strikes of one lane: every fault once in each round, in a drawn order."""
    draw = random.Random(f"{seed} {' '.join(faults)}")
    while True:
        for fault in draw.sample(faults, len(faults)):
            yield Strike(fault, draw.uniform(*gap_s), draw.uniform(2.0, 9.0), draw.randrange(1_000))
