"""What every test shares: the broker fixtures, and an environment without settings of ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["tests.broker_fixtures"]

settings.register_profile("ours", deadline=None)  # how long an example takes is the machine's matter
settings.load_profile("ours")

_SLOW_FIRST = ("chaos", "fire", "worker", "packaging", "demo")
"""Folders whose tests take long: begun last, one process would be alone with them at the end."""
_TOGETHER = frozenset({"secure", "worker"})
"""Folders whose tests share a fixture that takes long."""
_ONE_BY_ONE = frozenset({"fire", "simulation"})
"""Folders whose tests share nothing: several processes may take turns with them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let processes share the tests by the file, or by the folder where a folder shares a fixture."""
    root = Path(__file__).parent
    for item in items:
        room, *rest = item.path.relative_to(root).parts
        if room not in _ONE_BY_ONE:
            item.add_marker(pytest.mark.xdist_group(room if room in _TOGETHER else "/".join((room, *rest))))
    rank = {room: index for index, room in enumerate(_SLOW_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.relative_to(root).parts[0], len(rank)))


@pytest.fixture(autouse=True)
def _no_settings_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings come from the test, never from the shell it runs in."""
    for name in os.environ:
        if name.startswith("STREAMING_") and name != "STREAMING_TEST_BROKERS":
            monkeypatch.delenv(name)
