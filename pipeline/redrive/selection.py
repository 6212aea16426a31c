"""Which dead letters: conditions that all hold, and reading them from text.

Owns: the names and values of conditions, what is wrong with them. Must not know: where letters are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Self

from pipeline.clock import rfc3339
from pipeline.errors import StagepostError

__all__ = ["LetterState", "Selection", "WrongSelection"]

_TEXT_CHARS = 256
_MAX_OFFSET = 2**63 - 1


class LetterState(StrEnum):
    """What has become of a dead letter."""

    OPEN = "open"
    REDRIVEN = "redriven"
    DISCARDED = "discarded"


class WrongSelection(StagepostError):
    """A selection, a cursor or a number that nobody can read; `field` says which."""

    def __init__(self, field: str, reason: str) -> None:
        self.field = field
        self.reason = reason
        super().__init__(f"{field}: {reason}")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which dead letters: all conditions that are not None hold. Times are seconds since 1970 of the failure,
    `since` inclusive, `until` exclusive; offsets are inclusive and need a topic and a partition."""

    topic: str | None = None
    partition: int | None = None
    first_offset: int | None = None
    last_offset: int | None = None
    fingerprint: str | None = None
    tenant: str | None = None
    error_class: str | None = None
    definition: str | None = None
    since_at: float | None = None
    until_at: float | None = None
    state: LetterState | None = LetterState.OPEN

    @classmethod
    def parse(cls, given: Mapping[str, str]) -> Self:
        """A selection from text, as pages, API and commands have it; an empty value is an absent one.

        Names are those of the fields, but `class`, `since` and `until`; times are RFC 3339 or seconds; `offset`
        stands for both offsets; `state=any` is every state. Raises `WrongSelection`.
        """
        values: dict[str, object] = {}
        for name, text in given.items():
            if not text:
                continue
            if name not in _READ:
                raise WrongSelection(name, f"is nothing to select by: use one of {', '.join(_READ)}")
            for target in _READ[name]:
                values[target] = _read(name, target, text)
        selection = replace(cls(), **values)  # type: ignore[arg-type]
        selection.check()
        return selection

    def check(self) -> None:
        """Raise `WrongSelection` where conditions contradict each other."""
        if self.partition is not None and self.topic is None:
            raise WrongSelection("partition", "needs a topic")
        if self.partition is None and not (self.first_offset is None and self.last_offset is None):
            raise WrongSelection("offset", "needs a topic and a partition")

    def as_text(self) -> dict[str, str]:
        """The inverse of `parse`."""
        names = {"error_class": "class", "since_at": "since", "until_at": "until"}
        found = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None:
                text = rfc3339(value) if isinstance(value, float) else str(value)
                found[names.get(item.name, item.name)] = text
        if self.state is None:
            found["state"] = "any"
        return found


_READ: dict[str, tuple[str, ...]] = {
    "topic": ("topic",),
    "partition": ("partition",),
    "offset": ("first_offset", "last_offset"),
    "first_offset": ("first_offset",),
    "last_offset": ("last_offset",),
    "fingerprint": ("fingerprint",),
    "tenant": ("tenant",),
    "class": ("error_class",),
    "definition": ("definition",),
    "since": ("since_at",),
    "until": ("until_at",),
    "state": ("state",),
}


def _read(name: str, target: str, text: str) -> object:
    if target == "state":
        return None if text == "any" else _state(text)
    if target.endswith("_at"):
        return _time(name, text)
    if target in {"partition", "first_offset", "last_offset"}:
        if not text.isdecimal() or not text.isascii() or int(text) > _MAX_OFFSET:
            raise WrongSelection(name, f"{text[:40]!r} is not a number of Kafka's")
        return int(text)
    if len(text) > _TEXT_CHARS:
        raise WrongSelection(name, f"has {len(text)} characters, the limit is {_TEXT_CHARS}")
    return text


def _state(text: str) -> LetterState:
    try:
        return LetterState(text)
    except ValueError:
        raise WrongSelection("state", f"{text[:40]!r} is not open, redriven, discarded or any") from None


def _time(name: str, text: str) -> float:
    try:
        if text[:5].isdecimal():
            seconds = float(text)
        else:
            time = datetime.fromisoformat(text)
            seconds = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
        rfc3339(seconds)
    except (ValueError, OverflowError, OSError):
        raise WrongSelection(name, f"{text[:40]!r} is neither RFC 3339 nor seconds since 1970") from None
    return seconds
