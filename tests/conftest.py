"""What every test shares: the broker fixtures, and an environment without settings of ours."""

from __future__ import annotations

import os

import pytest

pytest_plugins = ["tests.broker_fixtures"]


@pytest.fixture(autouse=True)
def _no_settings_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings come from the test, never from the shell it runs in."""
    for name in os.environ:
        if name.startswith("STREAMING_") and name != "STREAMING_TEST_BROKERS":
            monkeypatch.delenv(name)
