"""Whether a worker says truly that it does its work, and to whom (O1, O3)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from devtools.kafka import Brokers, Cluster
from tests.kafka_client import create_topic, wait_until
from tests.process_harness import ROOT
from tests.web.asking import HTML, TOKEN, TOKENS, Site
from tests.worker_harness import WorkerProcess

pytestmark = pytest.mark.kafka

_STICK = """
import os, pathlib, threading, time

from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator

fetched_records, heartbeat = Fetcher.fetched_records, GroupCoordinator._do_heartbeat
stick = pathlib.Path(os.environ["STICK"])


def stand_still():
    while threading.current_thread() is not threading.main_thread() and stick.exists():
        time.sleep(0.1)  # the whole thread stands still: fetches, commits, heartbeats


async def stuck(self, *args, **kwargs):
    stand_still()
    return await fetched_records(self, *args, **kwargs)


async def stuck_in_heartbeat(self):
    stand_still()
    return await heartbeat(self)


Fetcher.fetched_records, GroupCoordinator._do_heartbeat = stuck, stuck_in_heartbeat
"""


SILENT = "the consumer has not answered for"


def ready(site: Site) -> tuple[int, str]:
    """The status, and what is said."""
    found = site.get("/health/ready")
    return found.status, " ".join(found.data["reasons"])


def test_ready_means_that_the_consumer_works(own_kafka: Cluster, namespace: str, tmp_path: Path) -> None:
    """O1: a worker whose consumer stands still, or whose broker is gone, is alive but not ready, and says why; it is
    ready again when that is over. A spare worker without partitions is ready."""
    (tmp_path / "sitecustomize.py").write_text(_STICK)
    sticks = [tmp_path / "one", tmp_path / "other"]
    env = {
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
        "STICK": str(sticks[0]),
        "STREAMING_TOPIC_PARTITIONS": "1",
    }
    bootstrap = own_kafka.bootstrap
    create_topic(bootstrap, f"{namespace}.staging", 1)
    with (
        WorkerProcess(bootstrap, namespace, env=env) as one,
        WorkerProcess(bootstrap, namespace, env=env | {"STICK": str(sticks[1])}) as other,
    ):
        sites = [Site(worker.wait_ready()) for worker in (one, other)]
        wait_until(
            lambda: sorted(len(site.get("/").data["partitions"]) for site in sites) == [0, 1], 40, "one spare"
        )
        assert [ready(site) for site in sites] == [(200, ""), (200, "")]

        for stick in sticks:
            stick.touch()
        for site in sites:
            wait_until(lambda site=site: SILENT in ready(site)[1], 30, "the stuck thread to be noticed")  # type: ignore[misc]
            assert ready(site)[0] == 503
            assert site.get("/health/live").status == 200
            assert site.metric("stagepost_ready") == 0
        for stick in sticks:
            stick.unlink()
        for site in sites:
            wait_until(lambda site=site: ready(site) == (200, ""), 40, "the thread to go on")  # type: ignore[misc]

        node = own_kafka.nodes[0]
        node.kill()
        for site in sites:
            wait_until(lambda site=site: ready(site)[0] == 503, 30, "the broker to be missed")  # type: ignore[misc]
            assert "not a member of the consumer group" in ready(site)[1]
            assert site.get("/health/live").status == 200
        assert "not ready" in sites[0].get("/", HTML).text
        node.start()
        for site in sites:
            wait_until(lambda site=site: ready(site) == (200, ""), 60, "the broker to be found")  # type: ignore[misc]


def test_beyond_loopback_nobody_reads_without_a_token(kafka: Brokers, namespace: str) -> None:
    """O3: without tokens a worker does not start where other machines reach its pages; with them everything but health
    needs one, health says no more than its status without one, and payloads are hidden."""
    env = {"STREAMING_WEB_BIND": "0.0.0.0"}
    with WorkerProcess(kafka.bootstrap, namespace, env=env) as refused:
        assert refused.wait(30) == 1
        assert "STREAMING_WEB_BIND: 0.0.0.0 is reached from other machines" in refused.log_text()
        assert "STREAMING_ADMIN_TOKENS" in refused.log_text()
    with WorkerProcess(kafka.bootstrap, namespace, env=env | {"STREAMING_ADMIN_TOKENS": TOKENS}) as worker:
        site = Site(worker.wait_ready())
        for path in ("/", "/metrics", "/audit/", "/catalog/", "/openapi.json"):
            assert site.get(path).status == 401
            assert site.get(path).headers["WWW-Authenticate"] == 'Bearer realm="stagepost"'
            assert site.get(path, Authorization="Bearer wrong").status == 401
            assert site.get(path, Authorization=f"Bearer {TOKEN}").status == 200
        hidden = site.get("/dlq/x.dlq/0/0/payload", Authorization=f"Bearer {TOKEN}")
        assert (hidden.status, "STREAMING_SHOW_PAYLOADS" in hidden.data["error"]) == (403, True)
        assert site.get("/health/live").status == site.get("/health/ready").status == 200
        page = site.get("/audit/?by=x", HTML)
        assert (page.status, page.headers["Location"]) == (303, "/login?next=%2Faudit%2F%3Fby%3Dx")
        assert site.get("/login", HTML).status == 200
        site.log_in()
        assert site.get("/audit/", HTML).status == 200
        assert worker.terminate() == 0
