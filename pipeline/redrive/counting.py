"""How many letters, of which failures and tenants, from when to when: the statements behind groups and previews.

Owns: by which index each is counted. Must not know: connections, what is made of the rows.

What SQLite does quickly decides (benchmarks/LOG.md has the figures): a range of an index is counted four times as fast
as its letters are grouped; the first and the last of a range are looked up, while min() and max() over a group cost as
much as counting it. So letters are grouped by kind in one pass over an index, and only to be counted; from when to
when is asked of the ranges of failures, as the bars of a histogram are, where those are few.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

from pipeline.redrive.conditions import (
    KINDS,
    Condition,
    kinds_of,
    letters_of,
    place_of,
    selected,
    states_of,
)
from pipeline.redrive.schema import STATES
from pipeline.redrive.selection import Selection

__all__ = ["bars_of", "groups_of", "owners_of", "too_often", "topics_since"]

_SPANS_OF_COUNTED = Condition(
    """SELECT k.failure, min(c.first_at) AS first_at, max(c.last_at) AS last_at
    FROM counted c JOIN kind k ON k.id = c.kind GROUP BY k.failure"""
)


def groups_of(selection: Selection, limit: int, *, few_owners: bool) -> Condition:
    """A row for each of the largest groups, and behind it how many letters all have, how many groups there are, from
    when to when."""
    is_whole = letters_of(selection).sql == "true"
    by_range = selection.partition is None and (is_whole or few_owners)  # no index has ranges of a partition
    counted = _totals(selection) if is_whole else _counted(selection, with_times=not by_range)
    spans = _spans(selection) if by_range else _SPANS_OF_COUNTED
    return Condition(
        f"""WITH {_states(selection)}, counted AS ({counted.sql}), ranked AS (
            SELECT k.failure, k.tenant, c.count, row_number() OVER (
                PARTITION BY k.failure ORDER BY c.count DESC, k.tenant
            ) AS place FROM counted c JOIN kind k ON k.id = c.kind),
        span AS MATERIALIZED ({spans.sql})
        SELECT t.name, f.fingerprint, f.class, f.message, f.definition, f.schema_version, f.disposition,
            r.count, r.tenants, r.tenant_count, s.first_at, s.last_at, r.total, r.kinds,
            (SELECT min(first_at) FROM span), (SELECT max(last_at) FROM span)
        FROM (SELECT failure, sum(count) AS count, count(*) AS tenant_count,
                json_group_array(tenant) FILTER (WHERE place <= 10) AS tenants, sum(sum(count)) OVER () AS total,
                count(*) OVER () AS kinds
            FROM ranked GROUP BY failure ORDER BY sum(count) DESC LIMIT ?
        ) r JOIN span s ON s.failure = r.failure JOIN failure f ON f.id = r.failure JOIN topic t ON t.id = f.topic
        ORDER BY r.count DESC, t.name, f.fingerprint""",
        (*counted.parameters, *spans.parameters, limit),
    )


def too_often(selection: Selection, max_redrives: int) -> Condition:
    """How many letters have been redriven so often."""
    wanted = selected(selection)
    return Condition(
        f"""SELECT count(*) FROM letter l INDEXED BY by_redrives
        WHERE l.redrives > 0 AND l.redrives >= ? AND {wanted.sql}""",
        (max_redrives, *wanted.parameters),
    )


def owners_of(selection: Selection, limit: int) -> Condition:
    """How many failures are meant, or kinds where a tenant is given, up to a limit: those whose ranges can be read."""
    owners, _, _ = _owners(selection)
    kinds = kinds_of(selection) or Condition("true")
    return Condition(
        f"SELECT count(*) FROM (SELECT 1 FROM {owners} WHERE {kinds.sql} LIMIT ?)",
        (*kinds.parameters, limit),
    )


def bars_of(selection: Selection, edges: Sequence[float], *, few_owners: bool) -> Condition:
    """How many of the letters selected, all of which failed from the first to the last edge, failed in each bar."""
    *begins, newest = edges
    ends = (*begins[1:], math.nextafter(newest, math.inf))
    limits = tuple(itertools.chain.from_iterable(zip(begins, ends, strict=True)))
    values = ", ".join(f"({number}, ?, ?)" for number in range(len(begins)))
    bars = f"bar(number, since, until) AS (VALUES {values})"
    within = "l.failed_at >= bar.since AND l.failed_at < bar.until"
    if not few_owners or (selection.state is None and kinds_of(selection) is None):
        # Read by time, and those that are not meant passed over. Without the selection's own times, which say nothing
        # new here: of two limits SQLite may take the wider one for the index's.
        wanted = selected(replace(selection, since_at=None, until_at=None))
        return Condition(
            f"""WITH {bars}
            SELECT (SELECT count(*) FROM letter l INDEXED BY by_time WHERE {within} AND {wanted.sql})
            FROM bar ORDER BY bar.number""",
            (*limits, *wanted.parameters),
        )
    owners, owner, index = _owners(selection)
    kinds, place = kinds_of(selection) or Condition("true"), place_of(selection)
    return Condition(
        f"""WITH {bars}, {_states(selection)}
        SELECT sum((SELECT count(*) FROM letter l INDEXED BY {index}
            WHERE {owner} AND l.state = state.number AND {within} AND {place.sql}))
        FROM {owners} CROSS JOIN state CROSS JOIN bar WHERE {kinds.sql} GROUP BY bar.number ORDER BY bar.number""",
        (*limits, *place.parameters, *kinds.parameters),
    )


def topics_since(since_at: float) -> Condition:
    """By topic and class: open, redriven, discarded, from when to when the open ones failed, how many since then."""
    opened = "FROM letter l INDEXED BY by_failure WHERE l.failure = f.id AND l.state = 0"
    return Condition(
        f"""WITH {_states(Selection(state=None))}
        SELECT t.name, f.class, sum(c.open), sum(c.redriven), sum(c.discarded),
            min((SELECT min(l.failed_at) {opened})), max((SELECT max(l.failed_at) {opened})),
            sum((SELECT sum((SELECT count(*) FROM letter l INDEXED BY by_failure
                WHERE l.failure = f.id AND l.state = state.number AND l.failed_at > ?)) FROM state))
        FROM (SELECT failure, sum(open) AS open, sum(redriven) AS redriven, sum(discarded) AS discarded
            FROM kind GROUP BY failure
        ) c JOIN failure f ON f.id = c.failure JOIN topic t ON t.id = f.topic
        GROUP BY f.topic, f.class""",
        (since_at,),
    )


def _totals(selection: Selection) -> Condition:
    """A statement that counts the letters of each kind selected where neither time nor place are given: kind, count."""
    kinds = kinds_of(selection) or Condition("true")
    count = " + ".join(f"k.{STATES[state]}" for state in states_of(selection))
    return Condition(
        f"SELECT k.id AS kind, {count} AS count FROM {KINDS} WHERE {count} > 0 AND {kinds.sql}",
        kinds.parameters,
    )


def _counted(selection: Selection, *, with_times: bool) -> Condition:
    """A statement that counts the letters of each kind selected: kind, count, and `with_times` first_at, last_at."""
    wanted = selected(selection)
    times = ", min(l.failed_at) AS first_at, max(l.failed_at) AS last_at" if with_times else ""
    index = "INDEXED BY by_kind" if selection.partition is None else ""
    return Condition(
        f"SELECT l.kind AS kind, count(*) AS count{times} FROM letter l {index} WHERE {wanted.sql} GROUP BY l.kind",
        wanted.parameters,
    )


def _spans(selection: Selection) -> Condition:
    """A statement that looks up from when to when the letters selected failed: failure, first_at, last_at."""
    owners, owner, index = _owners(selection)
    kinds, times = kinds_of(selection) or Condition("true"), letters_of(selection)
    found = f"""FROM letter l INDEXED BY {index}
        WHERE {owner} AND l.state = state.number AND {times.sql}"""
    return Condition(
        f"""SELECT failure, min(first_at) AS first_at, max(last_at) AS last_at FROM (
            SELECT f.id AS failure, (SELECT min(l.failed_at) {found}) AS first_at,
                (SELECT max(l.failed_at) {found}) AS last_at
            FROM {owners} CROSS JOIN state WHERE {kinds.sql}
        ) GROUP BY failure""",
        (*times.parameters, *times.parameters, *kinds.parameters),
    )


def _owners(selection: Selection) -> tuple[str, str, str]:
    """Whose letters are ranges of an index: tables, which letters are one's, and the index. Of a tenant each failure
    has one kind."""
    if selection.tenant is None:
        return "failure f", "l.failure = f.id", "by_failure"
    return KINDS, "l.kind = k.id", "by_kind"


def _states(selection: Selection) -> str:
    return f"state(number) AS (VALUES {', '.join(f'({state})' for state in states_of(selection))})"
