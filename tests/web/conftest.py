"""One worker for all tests of its pages."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from devtools.kafka import Brokers
from tests.web.asking import TOKENS, Site
from tests.worker_harness import WorkerProcess


@pytest.fixture(scope="package")
def worker(kafka: Brokers) -> Iterator[WorkerProcess]:
    """A worker with the shop's catalog, and a token for ann."""
    env = {"STREAMING_ADMIN_TOKENS": TOKENS, "STREAMING_EVENT_POLICIES": "payout.sent.enabled=false"}
    namespace = f"t{os.urandom(4).hex()}"
    with WorkerProcess(kafka.bootstrap, namespace, catalog="tests.catalogs.shop", env=env) as started:
        yield started.wait_ready()


@pytest.fixture
def site(worker: WorkerProcess) -> Site:
    """Its pages, asked by somebody new."""
    return Site(worker)
