"""Which broker to use: one that is given, else one of our own.

Owns: the order of choice. Must not know: how a broker is started.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from devtools.kafka.cluster import Cluster

GIVEN = "STREAMING_TEST_BROKERS"


class Brokers(Protocol):
    """Anything with the address of running brokers."""

    @property
    def bootstrap(self) -> str:
        """`host:port` of one or more brokers, separated by commas."""
        ...


@dataclass(frozen=True, slots=True)
class GivenBrokers:
    """Brokers that somebody else runs; never stopped by us."""

    bootstrap: str


def given(environ: Mapping[str, str] = os.environ) -> GivenBrokers | None:
    """Return the brokers that `STREAMING_TEST_BROKERS` names, or nothing if it is unset or empty."""
    address = environ.get(GIVEN, "").strip()
    return GivenBrokers(address) if address else None


@contextmanager
def brokers(environ: Mapping[str, str] = os.environ) -> Iterator[Brokers]:
    """Yield the given brokers, else a one-node cluster that ends with the block; raises `NoBroker`."""
    there = given(environ)
    if there is not None:
        yield there
        return
    with Cluster() as cluster:
        yield cluster
