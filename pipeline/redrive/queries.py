"""Questions to the index of dead letters, each answered within 300 ms, also with a million letters.

Owns: the connection, the SQL that finds letters; `counting.py` has the SQL that counts them. Must not know: Kafka, how
the index is filled. Every call blocks.

Letters are looked for kind by kind where few kinds are meant: each is read in order, a page of it, and the pages
are merged. Where many are meant the letters are read by time, and those of other kinds passed over; their share is
then small.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.redrive.conditions import (
    KINDS,
    Condition,
    cursor_of,
    kinds_of,
    letters_of,
    position_of,
    selected,
    states_of,
)
from pipeline.redrive.counting import bars_of, groups_of, owners_of, too_often, topics_since
from pipeline.redrive.model import Bar, Coordinates, Group, Groups, Letter, LetterPage, Preview, TopicSummary
from pipeline.redrive.schema import STATES
from pipeline.redrive.selection import LetterState, Selection, WrongSelection
from pipeline.redrive.store import topic_number

__all__ = ["Queries"]

MAX_PAGE = 1_000
_MAX_GROUPS = 1_000
_FEW_KINDS = 100
_FEW_OWNERS = 1_000
_LISTS = 64
"""How many lists that go on are kept: one for each job that is led here, and some more."""
_RATE_S = 300.0
_PREVIEW_GROUPS = 20
_BARS = 24
_CACHE_KIB = 8_192

_LETTER = """t.name, l.partition, l.offset, l.state, f.class, f.message, f.fingerprint, f.definition, f.schema_version,
    f.disposition, k.tenant, l.id, l.source, l.first_failure_at, l.failed_at, l.redrives, l.size, f.dialect,
    f.source_topic, l.source_partition, l.source_offset"""
_JOINED = "JOIN kind k ON k.id = l.kind JOIN failure f ON f.id = k.failure JOIN topic t ON t.id = l.topic"
_NEWEST_FIRST = "l.failed_at DESC, l.topic DESC, l.partition DESC, l.offset DESC"


class Queries:
    """Reads the file that a `Store` writes. Safe from any thread; one call at a time is carried out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._last: dict[Coordinates, Letter] = {}
        """The last letters of some lists in staged order: behind them a list goes on, also once they are forgotten."""

    def close(self) -> None:
        """Close the file; the next question opens it again. Idempotent."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def topics(self, now: float) -> list[TopicSummary]:
        """Every topic with letters, those with most open ones first; `now` is what the rate is reckoned from."""
        rows = self._answer(topics_since(now - _RATE_S))
        by_topic: dict[str, list[tuple[object, ...]]] = {}
        for row in rows:
            by_topic.setdefault(row[0], []).append(row)
        return sorted((_summary(name, of) for name, of in by_topic.items()), key=lambda s: (-s.open, s.topic))

    def groups(self, selection: Selection, limit: int = _MAX_GROUPS) -> Groups:
        """The failures selected by kind, of which at most `limit` are told."""
        few = self._has_few_owners(selection)
        rows = self._answer(groups_of(selection, limit, few_owners=few))
        count, kinds = rows[0][-4:-2] if rows else (0, 0)
        return Groups(count, kinds, [_group(row) for row in rows])

    def letters(self, selection: Selection, cursor: str | None, limit: int) -> LetterPage:
        """A page of the letters selected, newest first. Raises `WrongSelection`."""
        selection.check()
        if not 1 <= limit <= MAX_PAGE:
            raise WrongSelection("limit", f"is {limit}: use 1 to {MAX_PAGE:,}")
        wanted = letters_of(selection)
        if cursor:
            wanted &= position_of(cursor)
        found = self._newest(selection, wanted, limit + 1)
        letters = found[:limit]
        return LetterPage(letters, cursor_of(letters[-1]) if len(found) > limit else None)

    def letter(self, place: Coordinates) -> Letter | None:
        """The letter that lies there, if it is known."""
        return self._at(topic_number(place.topic), place.partition, place.offset)

    def preview(self, selection: Selection, max_redrives: int) -> Preview:
        """How many letters a job would meet, of which kinds, and when they failed."""
        few = self._has_few_owners(selection)
        rows = self._answer(groups_of(selection, _PREVIEW_GROUPS, few_owners=few))
        count, kinds, oldest, newest = rows[0][-4:] if rows else (0, 0, None, None)
        ((held_back,),) = self._answer(too_often(selection, max_redrives))
        bars: list[Bar] = []
        if rows:
            edges = _edges(oldest, newest)
            counts = self._answer(bars_of(selection, edges, few_owners=few))
            bars = [
                Bar(*ends, count) for ends, (count,) in zip(itertools.pairwise(edges), counts, strict=True)
            ]
        groups = [_group(row) for row in rows]
        return Preview(selection, count, held_back, kinds, groups, oldest, newest, bars)

    def in_staged_order(self, selection: Selection, after: Coordinates | None, limit: int) -> list[Letter]:
        """The next letters selected, in the order in which they were staged; `after`: behind that one.

        Per topic, so that the events of a key keep their order; the topics one after the other. Costs the same
        however far into the selection it is. Behind a letter that is not known, and did not end one of the lists that
        were given here lately, it begins anew.
        """
        wanted = selected(selection)
        if after is not None:
            wanted &= self._behind(after, one_topic=selection.topic is not None)
        rows = self._all(
            f"""SELECT {_LETTER} FROM letter l INDEXED BY by_source {_JOINED} WHERE {wanted.sql}
            ORDER BY l.topic, l.source_partition, l.source_offset, l.partition, l.offset LIMIT ?""",
            (*wanted.parameters, limit),
        )
        letters = [_letter(row) for row in rows]
        if letters:
            self._remember(letters[-1])
        return letters

    def ended_by(self, job_id: str) -> int:
        """How many letters a job has ended, those that have been forgotten since among them."""
        ((count,),) = self._all(
            """SELECT (SELECT count(*) FROM ending WHERE job = ?1)
            + coalesce((SELECT count FROM ended WHERE job = ?1), 0)""",
            (job_id,),
        )
        return int(count)

    def known_offsets(self, topic: str, partition: int, first: int, last: int) -> set[int]:
        """Which offsets of a partition, from first to last, are those of known letters."""
        rows = self._all(
            "SELECT offset FROM letter WHERE topic = ? AND partition = ? AND offset BETWEEN ? AND ?",
            (topic_number(topic), partition, first, last),
        )
        return {offset for (offset,) in rows}

    # --- how letters are found

    def _behind(self, place: Coordinates, *, one_topic: bool) -> Condition:
        """Behind a letter in the order of staging; true where it is not known. As values and not as a subquery, and
        without the topic where that is given: else SQLite reads all letters before it again."""
        letter = self._last.get(place) or self.letter(place)
        if letter is None:
            return Condition("true")
        columns = ("topic", "source_partition", "source_offset", "partition", "offset")[one_topic:]
        values = (topic_number(place.topic), letter.source_partition, letter.source_offset, *place[1:])[
            one_topic:
        ]
        names, marks = ", ".join(f"l.{name}" for name in columns), ", ".join("?" * len(columns))
        return Condition(f"({names}) > ({marks})", values)

    def _remember(self, letter: Letter) -> None:
        with self._lock:
            self._last[Coordinates(letter.topic, letter.partition, letter.offset)] = letter
            if len(self._last) > _LISTS:
                del self._last[next(iter(self._last))]

    def _has_few_owners(self, selection: Selection) -> bool:
        ((owners,),) = self._answer(owners_of(selection, _FEW_OWNERS + 1))
        return bool(owners <= _FEW_OWNERS)

    def _newest(self, selection: Selection, wanted: Condition, limit: int) -> list[Letter]:
        states = states_of(selection)
        if selection.partition is None:
            kinds = kinds_of(selection) or Condition("true")
            counts = " + ".join(f"k.{STATES[state]}" for state in states)
            few = self._all(
                f"SELECT k.id FROM {KINDS} WHERE {kinds.sql} AND {counts} > 0 LIMIT ?",
                (*kinds.parameters, _FEW_KINDS + 1),
            )
            if len(few) <= _FEW_KINDS:
                return self._merged([kind for (kind,) in few], states, wanted, limit)
        index = "" if selection.partition is not None else "INDEXED BY by_time"
        meant = selected(selection) & wanted
        rows = self._all(
            f"""SELECT {_LETTER} FROM (SELECT * FROM letter l {index} WHERE {meant.sql}
            ORDER BY {_NEWEST_FIRST} LIMIT ?) l {_JOINED} ORDER BY {_NEWEST_FIRST}""",
            (*meant.parameters, limit),
        )
        return [_letter(row) for row in rows]

    def _merged(
        self, kinds: Sequence[int], states: Sequence[int], wanted: Condition, limit: int
    ) -> list[Letter]:
        places: list[tuple[float, int, int, int]] = []
        for kind in kinds:
            for state in states:
                places += self._all(
                    f"""SELECT l.failed_at, l.topic, l.partition, l.offset FROM letter l INDEXED BY by_kind
                    WHERE l.kind = ? AND l.state = ? AND {wanted.sql} ORDER BY {_NEWEST_FIRST} LIMIT ?""",
                    (kind, state, *wanted.parameters, limit),
                )
        places.sort(reverse=True)
        found = [self._at(*place) for _, *place in places[:limit]]
        return [letter for letter in found if letter is not None]

    def _at(self, topic: int, partition: int, offset: int) -> Letter | None:
        rows = self._all(
            f"SELECT {_LETTER} FROM letter l {_JOINED} WHERE l.topic = ? AND l.partition = ? AND l.offset = ?",
            (topic, partition, offset),
        )
        return _letter(rows[0]) if rows else None

    def _answer(self, asked: Condition) -> list[tuple[Any, ...]]:
        return self._all(asked.sql, asked.parameters)

    def _all(self, statement: str, parameters: Sequence[int | float | str] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            if self._connection is None:
                self._connection = _connect(self._path)
            return self._connection.execute(statement, parameters).fetchall()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA query_only = true")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    return connection


def _edges(oldest: float, newest: float) -> list[float]:
    """Where the bars of a histogram begin, and where the last one ends, all of equal width."""
    number = _BARS if newest > oldest else 1
    return [oldest + place * (newest - oldest) / number for place in range(number)] + [newest]


def _letter(row: Sequence[Any]) -> Letter:
    topic, partition, offset, state, *rest = row
    return Letter(topic, partition, offset, LetterState(STATES[state]), *rest)


def _group(row: Sequence[Any]) -> Group:
    return Group(*(*row[:8], tuple(json.loads(row[8])), *row[9:12]))


def _summary(name: str, rows: Sequence[tuple[Any, ...]]) -> TopicSummary:
    oldest = [row[5] for row in rows if row[5] is not None]
    newest = [row[6] for row in rows if row[6] is not None]
    return TopicSummary(
        name,
        sum(row[2] for row in rows),
        sum(row[3] for row in rows),
        sum(row[4] for row in rows),
        60 * sum(row[7] for row in rows) / _RATE_S,
        {row[1]: row[2] for row in rows if row[2]},
        min(oldest, default=None),
        max(newest, default=None),
    )
