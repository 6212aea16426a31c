"""Which broker to use: one that is given, else Docker, else the JVM.

Owns: the order of choice. Must not know: how a broker is run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from devtools.kafka.engine import Engine
from devtools.kafka.errors import NoBroker
from devtools.kafka.jvm import JvmEngine

GIVEN = "STREAMING_TEST_BROKERS"
EngineName = Literal["auto", "docker", "jvm"]


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


def choose_engine(name: EngineName = "auto") -> Engine:
    """Return the engine of that name; for `auto` Docker where it answers, else the JVM. Raises `NoBroker`.

    Blocks while an image or jars are fetched for the first time.
    """
    if name == "jvm":
        return JvmEngine()
    try:
        return _docker()
    except NoBroker as no_docker:
        if name == "docker":
            raise
        try:
            return JvmEngine()
        except NoBroker as no_jvm:
            raise NoBroker(f"{no_docker.reason}; {no_jvm.reason}") from no_jvm


def _docker() -> Engine:
    try:
        from devtools.kafka.docker import DockerEngine
    except ImportError:
        raise NoBroker("testcontainers is not installed; install the extra 'demo' to use Docker") from None
    return DockerEngine()
