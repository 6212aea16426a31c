"""The errors of the catalog, and `StagepostError`, the one base class of the whole project.

Owns: what can be wrong with a catalog, a policy or a payload, said as facts and as an instruction.
Must not know: how the checks are made. Loads nothing but the standard library (rule N3).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class StagepostError(Exception):
    """Base of every error that this project raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a catalog: in which file, at which entry, against which rule.

    `file` may carry a line (`events.py:12`); `file` and `entry` may be empty where there is none.
    """

    file: str
    entry: str
    rule: str
    message: str

    def __str__(self) -> str:
        """Say it on one line: `file: entry 'x': D2: message`."""
        parts = [self.file] if self.file else []
        if self.entry:
            parts.append(f"entry {self.entry!r}")
        return " ".join(": ".join([*parts, self.rule, self.message]).split())


class CatalogError(StagepostError):
    """The catalog cannot be used; `problems` holds all that was found, not just the first (rule D2)."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        count = len(self.problems)
        lines = "".join(f"\n  {problem}" for problem in self.problems)
        super().__init__(
            f"the catalog has {count} problem{'' if count == 1 else 's'}; correct "
            f"{'it' if count == 1 else 'them'}, then check with `catalog lint`:{lines}"
        )


class UnknownDefinition(StagepostError):
    """No definition has this key. `suggestions` holds up to three known keys that look like it."""

    def __init__(self, key: str, known: Iterable[str]) -> None:
        self.key = key
        self.suggestions: tuple[str, ...] = tuple(similar(key, known))
        super().__init__(
            f"the catalog has no definition {key!r}{did_you_mean(self.suggestions)}; "
            "add it to the catalog or correct the key"
        )


class PayloadRefused(StagepostError):
    """A payload does not match its definition `key`.

    `reason` names locations and rules only, never a value of the payload: payloads may be secret,
    and errors end in logs and dead letters.
    """

    def __init__(self, key: str, reason: str) -> None:
        self.key = key
        self.reason = reason
        super().__init__(f"the payload does not match the definition {key!r}: {reason}")


class PolicyError(StagepostError):
    """A delivery policy is not valid; `entry` is the text or the place that is wrong (rules D3 to D5)."""

    def __init__(self, entry: str, reason: str) -> None:
        self.entry = entry
        self.reason = reason
        super().__init__(f"delivery policy {entry!r}: {reason}")


def similar(key: str, known: Iterable[str]) -> list[str]:
    """Return up to three of the `known` names that look like `key`, the likeliest first."""
    return difflib.get_close_matches(key, sorted(known), n=3)


def did_you_mean(suggestions: Sequence[str]) -> str:
    """Return ` (did you mean 'a' or 'b'?)`, or nothing where there is nothing to suggest."""
    return f" (did you mean {' or '.join(map(repr, suggestions))}?)" if suggestions else ""
