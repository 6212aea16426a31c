"""Fixtures for tests against a real Kafka broker; a pytest plugin that `conftest.py` loads.

Where no broker can be had, the tests are skipped with the reason; under `CI` they fail instead.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from devtools.kafka import Brokers, Cluster, NoBroker, brokers


@pytest.fixture(scope="session")
def kafka() -> Iterator[Brokers]:
    """Brokers that all tests share, by `.bootstrap`. Keep apart by `namespace`; never stop them."""
    with skipping(), brokers() as shared:
        yield shared


@pytest.fixture
def own_kafka() -> Iterator[Cluster]:
    """A one-node cluster for this test alone, which may kill, pause and restart it."""
    with skipping(), Cluster() as cluster:
        yield cluster


@pytest.fixture
def namespace() -> str:
    """A namespace that no other test has had, such as `t3f9a1c`."""
    return f"t{secrets.token_hex(4)}"


@contextmanager
def skipping() -> Iterator[None]:
    """Skip what asks for a broker where none can be had."""
    try:
        yield
    except NoBroker as absent:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(absent))
