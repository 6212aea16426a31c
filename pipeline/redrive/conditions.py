"""From a selection to SQL: which kinds it means, which letters of them, and by which index to look.

Owns: conditions and cursors. Must not know: connections, files. Values are parameters, never text of a statement.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.redrive.model import Letter
from pipeline.redrive.schema import STATES
from pipeline.redrive.selection import Selection, WrongSelection
from pipeline.redrive.store import topic_number

__all__ = [
    "KINDS",
    "Condition",
    "cursor_of",
    "kinds_of",
    "letters_of",
    "place_of",
    "position_of",
    "selected",
    "states_of",
]

KINDS = "kind k JOIN failure f ON f.id = k.failure"

Parameter = int | float | str


@dataclass(frozen=True, slots=True)
class Condition:
    """A piece of SQL and its parameters, in the order of their marks."""

    sql: str
    parameters: tuple[Parameter, ...] = ()

    def __and__(self, other: Condition) -> Condition:
        """Both."""
        return Condition(f"{self.sql} AND {other.sql}", self.parameters + other.parameters)


def kinds_of(selection: Selection) -> Condition | None:
    """Which kinds the selection means, for `kind k JOIN failure f`; None: all."""
    wanted: dict[str, Parameter | None] = {
        "f.topic": None if selection.topic is None else topic_number(selection.topic),
        "f.fingerprint": selection.fingerprint,
        "f.class": selection.error_class,
        "f.definition": selection.definition,
        "k.tenant": selection.tenant,
    }
    given = {name: value for name, value in wanted.items() if value is not None}
    if not given:
        return None
    return Condition(" AND ".join(f"{name} = ?" for name in given), tuple(given.values()))


def place_of(selection: Selection) -> Condition:
    """What it says of where the letter lies, beside the topic."""
    condition = Condition("true")
    if selection.partition is not None:
        condition &= Condition("l.partition = ?", (selection.partition,))
    if selection.first_offset is not None:
        condition &= Condition("l.offset >= ?", (selection.first_offset,))
    if selection.last_offset is not None:
        condition &= Condition("l.offset <= ?", (selection.last_offset,))
    return condition


def letters_of(selection: Selection) -> Condition:
    """What it says of the letter itself: place and time. The state is apart, for every index has it elsewhere."""
    condition = place_of(selection)
    if selection.since_at is not None:
        condition &= Condition("l.failed_at >= ?", (selection.since_at,))
    if selection.until_at is not None:
        condition &= Condition("l.failed_at < ?", (selection.until_at,))
    return condition


def selected(selection: Selection) -> Condition:
    """All of it, for `letter l`."""
    wanted = letters_of(selection)
    if selection.state is not None:
        wanted &= Condition(f"l.state = {STATES.index(selection.state)}")
    if selection.topic is not None:
        wanted &= Condition("l.topic = ?", (topic_number(selection.topic),))
    kinds = kinds_of(selection)
    if kinds is None:
        return wanted
    return wanted & Condition(f"l.kind IN (SELECT k.id FROM {KINDS} WHERE {kinds.sql})", kinds.parameters)


def states_of(selection: Selection) -> tuple[int, ...]:
    """The states that the selection means, as numbers."""
    return (0, 1, 2) if selection.state is None else (STATES.index(selection.state),)


def cursor_of(letter: Letter) -> str:
    """Text from which a list is continued behind this letter; means the same to every worker."""
    return f"{letter.failed_at!r},{letter.partition},{letter.offset},{letter.topic}"


def position_of(cursor: str) -> Condition:
    """Only what stands behind the cursor in a list. Raises `WrongSelection`."""
    try:
        failed_at, partition, offset, topic = cursor.split(",", 3)
        place = (float(failed_at), topic_number(topic), int(partition), int(offset))
    except ValueError:
        raise WrongSelection("cursor", f"{cursor[:40]!r} is not one that a list ended with") from None
    return Condition("(l.failed_at, l.topic, l.partition, l.offset) < (?, ?, ?, ?)", place)
