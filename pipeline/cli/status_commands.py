"""`faust -A pipeline status` and `breakers ...`: a running worker, asked and steered (O2, O3).

Owns: the commands and their two forms of answer. Must not know: how a worker finds out, how an order reaches others.
"""

from __future__ import annotations

from urllib.parse import quote

from faust.cli import argument, option
from faust.cli.base import cli

from pipeline.application import Application
from pipeline.cli.command import WORKER_OPTIONS, Report, Subcommand, add_group, table
from pipeline.cli.dlq_reports import parked_text, plain
from pipeline.cli.following import run_job
from pipeline.cli.worker_api import worker_at
from pipeline.clock import rfc3339

__all__ = ["register"]

_REASON = option("--reason", default="", help="Why; stands in the audit record.")
_PARTITION = option("--partition", default="", help="Of one staging partition.")
_CHOICE = (
    option("--tenant", default="", help="One tenant's."),
    option("--definition", default="", help="One definition's."),
)
_DRY_RUN = option("--dry-run", is_flag=True, help="Only show what it would meet.")


def register(application: Application) -> None:
    """Put the commands on Faust's command line."""
    json_option = option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
    application.app.command(
        *WORKER_OPTIONS, json_option, base=Subcommand, group=cli, application=application
    )(status)
    add = add_group(application, "breakers", "Look at targets' breakers; pause, resume and reset them.")
    add(list, *WORKER_OPTIONS)
    for handler in (pause, resume, reset):
        add(handler, argument("target"), _REASON, *WORKER_OPTIONS)
    add(release, argument("target"), _PARTITION, _DRY_RUN, _REASON, *WORKER_OPTIONS)
    add(move_on, argument("target"), _PARTITION, *_CHOICE, _DRY_RUN, _REASON, *WORKER_OPTIONS)


async def status(self: Subcommand, *, url: str, token: str) -> Report:
    """How a worker is: ready or not and why, what needs attention, where the events are.

    Exit status 0 only where it is ready.
    """
    async with worker_at(self.application.settings, url, token) as worker:
        found = await worker.get("/")
    rows = [
        ("ready", "yes" if found["ready"] else "no"),
        ("in staging, not committed", None if found["lag"] is None else f"{found['lag']:,}"),
        ("delivered since its start", f"{found['totals']['delivered']:,.0f}"),
        ("parked now", f"{found['parked']:,}"),
        ("open dead letters", f"{found['dead']:,}"),
    ]
    attention = [(item["text"], item["facts"] or None, item["detail"] or None) for item in found["attention"]]
    parts = [table(("WORKER", ""), rows)]
    if attention:
        parts.append(table(("NEEDS ATTENTION", "FACTS", "WHY"), attention))
    return Report(found, plain("\n\n".join(parts)), bool(found["ready"]))


async def list(self: Subcommand, *, url: str, token: str) -> Report:  # noqa: A001 -- a command is named like its handler
    """List the targets, those that are not well first, and what is parked because no worker knows what it is.

    Exit status 0 only where every breaker is closed.
    """
    async with worker_at(self.application.settings, url, token) as worker:
        found = await worker.get("/breakers/")
    rows = [
        (
            target["target"],
            "paused" if target["paused_by"] else target["state"],
            rfc3339(target["since"]),
            f"{target['failure_ratio']:.0%}",
            f"{target['parked_records']:,}",
            target["reason"] or None,
        )
        for target in found["targets"]
    ]
    parts = [table(("TARGET", "STATE", "SINCE", "FAILURES", "PARKED", "WHY"), rows)]
    unknown = [
        (one["target"], one["partition"], f"{one['records']:,}", rfc3339(one["oldest_at"]), one["reason"])
        for one in found["unknown"]
    ]
    if unknown:
        parts.append(table(("NO WORKER KNOWS", "PARTITION", "PARKED", "OLDEST", "WHY"), unknown))
    return Report(
        found, plain("\n\n".join(parts)), all(target["state"] == "closed" for target in found["targets"])
    )


async def pause(self: Subcommand, *, target: str, reason: str, url: str, token: str) -> Report:
    """Park everything for TARGET, on all workers, until somebody resumes it."""
    return await _order(self, target, "pause", reason, url, token)


async def resume(self: Subcommand, *, target: str, reason: str, url: str, token: str) -> Report:
    """End the pause of TARGET."""
    return await _order(self, target, "resume", reason, url, token)


async def reset(self: Subcommand, *, target: str, reason: str, url: str, token: str) -> Report:
    """Close the breaker of TARGET now, without waiting for its next probe."""
    return await _order(self, target, "reset", reason, url, token)


async def release(self: Subcommand, *, target: str, dry_run: bool, **given: str) -> Report:
    """Deliver what is parked for TARGET now, in order, though its breaker would wait or it is paused.

    Shows first what is parked, then how far it is. Exit status 0 once all of it has ended; what the target does not
    take stays parked, with status 1. TARGET may be a definition or staging version that no worker knew, as `breakers
    list` names it.
    """
    return await _do_away(self, target, "release", dry_run, **given)


async def move_on(self: Subcommand, *, target: str, dry_run: bool, **given: str) -> Report:
    """Make dead letters of what is parked for TARGET, or of some of it: it is not to wait any longer.

    Shows first what is parked, then how far it is. Exit status 0 once all of it is dead-lettered, whence it can be
    redriven.
    """
    return await _do_away(self, target, "move-on", dry_run, **given)


async def _do_away(
    self: Subcommand,
    target: str,
    how: str,
    dry_run: bool,
    *,
    url: str,
    token: str,
    reason: str,
    **chosen: str,
) -> Report:
    address = f"/breakers/{quote(target, safe='')}/"
    given = {name: value for name, value in chosen.items() if value}
    async with worker_at(self.application.settings, url, token) as worker:
        found = await worker.get(address, given)
        if dry_run:
            return Report(found, parked_text(found), done=True)
        self.progress(parked_text(found))
        return await run_job(self, worker, address + how, {"reason": reason, **given})


async def _order(self: Subcommand, target: str, want: str, reason: str, url: str, token: str) -> Report:
    async with worker_at(self.application.settings, url, token) as worker:
        found = await worker.post(f"/breakers/{quote(target, safe='')}/{want}", {"reason": reason})
    now = found["target"]
    by = f", by {now['paused_by']}" if now["paused_by"] else ""
    return Report(found, f"{target}: {now['state']}{by}", done=True)
