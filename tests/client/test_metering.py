"""What a service exports of its staging, where it exports Prometheus metrics at all (O4, N3)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from devtools.kafka import Brokers
from pipeline.errors import ErrorClass
from pipeline.metrics import ALL
from tests.kafka_client import create_topic

ROOT = Path(__file__).resolve().parents[2]
_PROGRAM = """
import asyncio, sys
import prometheus_client
from pipeline import Settings, StagepostError, Stager

async def main():
    settings = Settings.from_env(__import__("os").environ)
    for _ in range(2):  # what the first stager counted stays counted
        async with Stager(settings) as stager:
            for number in range(5):
                await stager.stage("order.paid", {"cents": number}, tenant="t")
            try:
                await stager.stage("order.paid", {"cents": 1}, policy={"outbox": "never"})
            except StagepostError:
                pass
            print(prometheus_client.generate_latest().decode())
    print(prometheus_client.generate_latest().decode())

asyncio.run(main())
"""


def exported(bootstrap: str, namespace: str, folder: Path, **more: str) -> list[dict[str, float]]:
    """What the program exported of ours, three times, by name and labels."""
    env = {
        "STREAMING_BROKERS": bootstrap,
        "STREAMING_CATALOG": "tests.catalogs.shop",
        "STREAMING_CLOUDEVENTS_SOURCE": "//shop/web",
        "STREAMING_NAMESPACE": namespace,
        "STREAMING_OUTBOX_DIR": str(folder / "outbox"),
        "STREAMING_STAGE_TIMEOUT_S": "0.5",
        "STREAMING_CLOSE_TIMEOUT_S": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        cwd=ROOT,
        env=os.environ | env | more,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    parts = done.stdout.split("# HELP python_gc_objects_collected_total")[1:]
    return [
        {n: float(v) for n, v in re.findall(r"^(stagepost_\S+) (\S+)$", part, re.MULTILINE)} for part in parts
    ]


@pytest.mark.kafka
def test_calls_are_counted_by_where_they_ended(kafka: Brokers, namespace: str, tmp_path: Path) -> None:
    """O4: calls of stage() are counted by where their event is durable, with how long they took; also those of a stager
    that was closed."""
    create_topic(kafka.bootstrap, f"{namespace}.staging", 2)
    first, second, last = exported(kafka.bootstrap, namespace, tmp_path)
    assert first['stagepost_staged_total{via="topic"}'] == 6
    assert second['stagepost_staged_total{via="topic"}'] == last['stagepost_staged_total{via="topic"}'] == 12
    assert second['stagepost_stage_seconds_count{via="topic"}'] == 12
    assert 0 < second['stagepost_stage_seconds_sum{via="topic"}'] < 12
    assert second["stagepost_staging_breaker_state"] == second["stagepost_outbox_rows"] == 0
    for error_class in ErrorClass:
        assert first[f'stagepost_stage_failed_total{{error_class="{error_class}"}}'] == 0
    known = {metric.name for metric in ALL}
    assert {re.sub(r"(_bucket|_count|_sum)?(\{.*)?$", "", name) for name in second} <= known


def test_an_outage_is_seen(namespace: str, tmp_path: Path) -> None:
    """O4, B1: while no broker answers, the outbox's rows, bytes and oldest age grow, and the breaker opens."""
    first, second, _ = exported("127.0.0.1:1", namespace, tmp_path, STREAMING_CB_MIN_REQUESTS="1")
    assert first['stagepost_staged_total{via="outbox"}'] == 5
    assert sum(count for name, count in first.items() if name.startswith("stagepost_stage_failed_total")) == 1
    assert first["stagepost_outbox_rows"] == 5
    assert second["stagepost_outbox_rows"] == 10
    assert second["stagepost_outbox_bytes"] > first["stagepost_outbox_bytes"] > 0
    assert second["stagepost_outbox_oldest_age_seconds"] > 0
    assert first["stagepost_staging_breaker_state"] == 2
