"""Fixtures of the client's tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.client import client_events
from tests.client.wire import Wire

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    """Sees and holds back what goes to the broker."""
    return Wire(monkeypatch)


@pytest.fixture
def program_env() -> dict[str, str]:
    """The environment of a program that stages with the catalog of these tests."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "STREAMING_CATALOG": client_events.NAME,
        "STREAMING_CLOUDEVENTS_SOURCE": client_events.SOURCE,
        "STREAMING_EVENT_POLICIES": client_events.NO_OUTBOX,
    }
