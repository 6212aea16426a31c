"""Fixtures of the client's tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.client.wire import Wire

HERE = Path(__file__).resolve().parent


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    """Sees and holds back what goes to the broker."""
    return Wire(monkeypatch)


@pytest.fixture
def program_env() -> dict[str, str]:
    """The environment of a program that stages with the catalog of these tests."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE)]),
        "STREAMING_CATALOG": "client_events",
        "STREAMING_CLOUDEVENTS_SOURCE": "//tests/client",
    }
