"""`faust -A pipeline jobs list|show|pause|resume|cancel`: jobs that were ordered, looked at and steered (O2, O3).

Owns: the commands and their exit statuses. Must not know: how a job works, how an order reaches its leader.
"""

from __future__ import annotations

from urllib.parse import quote

from faust.cli import argument, option

from pipeline.application import Application
from pipeline.cli.command import WORKER_OPTIONS, Report, Subcommand, add_group
from pipeline.cli.dlq_reports import job_text, jobs_text
from pipeline.cli.following import follow_job
from pipeline.cli.worker_api import worker_at

__all__ = ["register"]

_FOLLOW = option("--follow", is_flag=True, help="Show how far it is until it has ended.")


def register(application: Application) -> None:
    """Put the commands on Faust's command line."""
    add = add_group(application, "jobs", "Look at redrives and other jobs; pause, resume and cancel them.")
    add(list, *WORKER_OPTIONS)
    add(show, argument("job"), _FOLLOW, *WORKER_OPTIONS)
    for handler in (pause, resume, cancel):
        add(handler, argument("job"), *WORKER_OPTIONS)


async def list(self: Subcommand, *, url: str, token: str) -> Report:  # noqa: A001 -- a command is named like its handler
    """List all jobs, newest first: redrives, discards, scans, releases, move-ons."""
    async with worker_at(self.application.settings, url, token) as worker:
        found = await worker.get("/jobs/")
    return Report(found, jobs_text(found), done=True)


async def show(self: Subcommand, *, job: str, follow: bool, url: str, token: str) -> Report:
    """Show how far JOB is.

    With --follow the exit status is that of the command that ordered it: 0 once all it selected is done.
    """
    async with worker_at(self.application.settings, url, token) as worker:
        found = (await worker.get(_address(job)))["job"]
        if follow:
            return await follow_job(self, worker, found)
    return Report(found, job_text(found), done=True)


async def pause(self: Subcommand, *, job: str, url: str, token: str) -> Report:
    """Let JOB wait until somebody resumes it."""
    return await _steer(self, job, "pause", url, token)


async def resume(self: Subcommand, *, job: str, url: str, token: str) -> Report:
    """Let JOB go on after a pause."""
    return await _steer(self, job, "resume", url, token)


async def cancel(self: Subcommand, *, job: str, url: str, token: str) -> Report:
    """End JOB; what it has done stays done."""
    return await _steer(self, job, "cancel", url, token)


async def _steer(self: Subcommand, job: str, how: str, url: str, token: str) -> Report:
    async with worker_at(self.application.settings, url, token) as worker:
        found = (await worker.post(_address(job) + how))["job"]
    return Report(found, job_text(found), done=True)


def _address(job: str) -> str:
    return f"/jobs/{quote(job, safe='')}/"
