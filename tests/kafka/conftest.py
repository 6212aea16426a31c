"""What every test of the Kafka room must leave behind: nothing."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _nothing_is_left(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No unclosed connection (a warning, and warnings are errors), no exception that nobody retrieved."""
    yield
    gc.collect()
    left = [record.getMessage() for record in caplog.get_records("call") if record.name == "asyncio"]
    assert not [message for message in left if not message.startswith("Executing ")]  # -X dev: a slow machine
