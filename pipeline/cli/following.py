"""Ordering a job of a worker, and showing how far it is until it has ended.

Owns: how often is looked, when the exit status is 0. Must not know: what the job is about.
"""

from __future__ import annotations

import asyncio
from typing import Any

from pipeline.cli.command import Report, Subcommand
from pipeline.cli.dlq_reports import job_line, job_text
from pipeline.cli.worker_api import WorkerApi

__all__ = ["follow_job", "run_job"]

_LOOK_S = 0.5
_FINAL = frozenset({"done", "cancelled", "failed"})


async def run_job(self: Subcommand, worker: WorkerApi, path: str, order: dict[str, object]) -> Report:
    """Post an order and follow its job. Done where the job is, and nothing was left as it is."""
    return await follow_job(self, worker, (await worker.post(path, order))["job"])


async def follow_job(self: Subcommand, worker: WorkerApi, job: Any) -> Report:
    """Show how far a job is until it has ended. Done where it is, and nothing was left as it is."""
    shown = ""
    while job["state"] not in _FINAL:
        if (line := job_line(job)) != shown:
            self.progress(shown := line)
        await asyncio.sleep(_LOOK_S)
        job = (await worker.get(f"/jobs/{job['id']}/"))["job"]
    self.progress(job_line(job))
    held = 0 if job["kind"] == "scan" else sum(job["held"].values())
    return Report(job, job_text(job), job["state"] == "done" and not held)
