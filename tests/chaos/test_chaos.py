"""Real fire in short: three brokers, a worker and two services, and faults on all of them (T5, T6, S2, S6, S9)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.broker_fixtures import skipping
from tests.chaos.run import Plan, run

_SHORT = Plan(
    seed=20,
    events=8_000,
    rate=300,
    tenants=30,
    lanes=(
        (
            "kill worker",
            "kill service",
            "kill two gunicorn processes",
            "fill outbox disk",
            "fill worker disk",
        ),
        ("kill broker", "stall targets", "delete target", "revoke ACL", "freeze broker, kill worker"),
    ),
    strikes=5,
    gap_s=(0.5, 2.0),
)


@pytest.mark.kafka
@pytest.mark.timeout(0)
def test_nothing_is_lost_under_fire(tmp_path: Path) -> None:
    """T5, T6, S2, S6, S9: processes killed, brokers killed and frozen, targets out of reach, refused, deleted, disks
    full, all within a minute: every event that a service was told is durable reaches an end, each key in order, by
    the ledger and by what the services wrote down themselves."""
    with skipping():
        outcome = run(_SHORT, tmp_path, print)
    assert outcome.sound, outcome
    assert outcome.counting, outcome
