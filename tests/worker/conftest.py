"""One worker for all tests of what a worker delivers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devtools.kafka import Brokers
from tests.worker.shop import Shop, running_shop


@pytest.fixture(scope="package")
def shop(kafka: Brokers) -> Iterator[Shop]:
    """A worker that has ended everything that `tests.worker.shop` stages."""
    with running_shop(kafka.bootstrap) as found:
        yield found
