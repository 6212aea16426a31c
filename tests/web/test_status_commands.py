"""`faust -A pipeline status` and `breakers ...` against a running worker (O2, O3)."""

from __future__ import annotations

import pytest

from tests.cli.command_line import Call, run_all
from tests.web.asking import TOKEN, Site
from tests.worker_harness import WorkerProcess

pytestmark = pytest.mark.kafka


def test_a_worker_is_asked_and_steered(site: Site, worker: WorkerProcess) -> None:
    """O2, O3: `status` and `breakers list` tell how a worker is, `pause` and `resume` change it with a token only; each
    exit status says whether that is so."""
    target = site.get("/breakers/").data["targets"][-1]["target"]
    settings = {"WEB_PORT": str(worker.web_port)}
    status, listed, refused, nobody, paused = run_all(
        Call(("status",), settings),
        Call(("breakers", "list", "--json"), settings),
        Call(("breakers", "reset", target), settings),
        Call(("status", "--url", "http://127.0.0.1:1"), {}),
        Call(("breakers", "pause", target, "--reason", "repairs", "--token", TOKEN), settings),
    )
    assert (status.status, status.row("ready")[1]) == (0, "yes")
    assert {found["target"] for found in listed.document["targets"]} >= {target}
    assert (refused.status, "--token" in refused.err) == (1, True)
    assert (nobody.status, "no worker answers at http://127.0.0.1:1" in nobody.err) == (1, True)
    assert (paused.status, paused.out.strip()) == (0, f"{target}: open, by ann")
    assert site.post(f"/breakers/{target}/resume").data["target"]["state"] == "closed"
    (line,) = site.get("/audit/?action=breaker.pause&limit=1000").data["lines"][:1]
    assert (line["subject"], line["facts"]["reason"]) == (target, "repairs")
