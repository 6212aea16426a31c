"""The table at the end of a run. Pure: an account in, text out.

Owns: what is shown and how. Must not know: Kafka, files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from demo.accounts import Account
from demo.progress import Watched

__all__ = ["table"]

_SHOWN: Final = 10
_NO_TENANT: Final = "(system)"


def table(account: Account, watched: Watched, namespace: str) -> str:
    """Return the whole report: deliveries by tenant and topic, dead letters by class, the sums, what is wrong."""
    parts = [_deliveries(account, namespace), _dead_letters(account, namespace), _sums(account, watched)]
    parts += [
        _wrong(what, ids)
        for what, ids in (
            ("missing: written down, but on no topic", account.missing),
            ("misplaced: on another topic, under another tenant or class than expected", account.misplaced),
            ("altered: not the bytes that were staged", account.altered),
            ("unexpected: on a topic, but written down nowhere", account.unexpected),
        )
        if ids
    ]
    return "\n\n".join(parts)


def _deliveries(account: Account, namespace: str) -> str:
    topics = sorted({topic for topic, _ in account.delivered})
    tenants = sorted({tenant for _, tenant in account.delivered}, key=lambda tenant: (not tenant, tenant))
    rows = [["tenant", *(topic.removeprefix(f"{namespace}.") for topic in topics), "delivered"]]
    for tenant in tenants:
        counts = [account.delivered[topic, tenant] for topic in topics]
        rows.append(
            [tenant or _NO_TENANT, *(f"{count:,}" if count else "" for count in counts), f"{sum(counts):,}"]
        )
    sums = [sum(account.delivered[topic, tenant] for tenant in tenants) for topic in topics]
    rows.append(["all", *(f"{count:,}" for count in sums), f"{sum(sums):,}"])
    return _aligned(rows)


def _dead_letters(account: Account, namespace: str) -> str:
    rows = [["dead-lettered to", "class", "records"]]
    rows += [
        [topic.removeprefix(f"{namespace}."), error_class, f"{count:,}"]
        for (topic, error_class), count in sorted(account.dead.items())
    ]
    return _aligned(rows)


def _sums(account: Account, watched: Watched) -> str:
    delivered, dead = account.delivered.total(), account.dead.total()
    seconds = max(watched.ended - watched.staged, 0.1)
    return _aligned(
        [
            ["written down", f"{account.written_down:,}"],
            ["delivered", f"{delivered:,}"],
            ["dead-lettered", f"{dead:,}"],
            ["delivered twice", f"{account.twice:,}"],
            ["missing", f"{len(account.missing):,}"],
            ["first delivery, after the start", f"{watched.delivered:.1f} s"],
            ["from the first event to the last", f"{seconds:.1f} s"],
            ["events/s", f"{(delivered + dead) / seconds:,.0f}"],
        ]
    )


def _wrong(what: str, ids: Sequence[str]) -> str:
    more = [f"  ... and {len(ids) - _SHOWN:,} more"] if len(ids) > _SHOWN else []
    return "\n".join([f"{len(ids):,} {what}", *(f"  {event_id}" for event_id in ids[:_SHOWN]), *more])


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they must be; the first to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *others = (
            cell.ljust(width) if column == 0 or not _is_number(rows, column) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *others]).rstrip())
    return "\n".join(lines)


def _is_number(rows: Sequence[Sequence[str]], column: int) -> bool:
    return rows[-1][column][:1].isdigit()
