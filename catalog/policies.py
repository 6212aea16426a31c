"""Delivery policies: their four fields, how overrides merge, and their two text forms (rules D3 to D6).

Owns: the values, the precedence and the grammars. Must not know: which definitions exist; the
`Catalog` checks keys. Loads nothing but the standard library (rule N3).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final, Literal, cast, get_args

from catalog.errors import PolicyError

Direct = Literal["direct", "skip"]
Outbox = Literal["never", "fallback_on_circuit_open", "always"]
Dlq = Literal["never", "on_routable_failure"]

MAX_ENTRIES: Final = 1024
"""Entries that one policies text may hold (rule D5)."""

_VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "direct": get_args(Direct),
    "outbox": get_args(Outbox),
    "dlq": get_args(Dlq),
}
_BOOLEANS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    """How an event is delivered. A field left out takes its default, always (rule D3).

    A value that does not exist raises `PolicyError` at once; a combination that makes no sense is
    found by `check()`, because only a merged result is judged (rule D4).
    """

    enabled: bool = True
    direct: Direct = "direct"
    outbox: Outbox = "fallback_on_circuit_open"
    dlq: Dlq = "on_routable_failure"

    def __post_init__(self) -> None:
        """Refuse values that do not exist."""
        for field in _FIELDS:
            _require("", field, getattr(self, field))

    def check(self, entry: str = "policy") -> DeliveryPolicy:
        """Return this policy if its fields fit together; `entry` names it in the `PolicyError`."""
        if self.direct == "skip" and self.outbox != "always":
            raise PolicyError(entry, f"direct=skip needs outbox=always, but outbox={self.outbox}")
        return self


@dataclass(frozen=True, slots=True)
class PolicyOverride:
    """Some fields of a policy; None leaves the field as the layer below has it (rule D4)."""

    enabled: bool | None = None
    direct: Direct | None = None
    outbox: Outbox | None = None
    dlq: Dlq | None = None

    def __post_init__(self) -> None:
        """Refuse values that do not exist."""
        for field in _FIELDS:
            value = getattr(self, field)
            if value is not None:
                _require("", field, value)


_FIELDS: Final = tuple(field.name for field in fields(DeliveryPolicy))
_KNOWN: Final = f"the fields are {', '.join(_FIELDS)}"


def merge(base: DeliveryPolicy, *overrides: PolicyOverride) -> DeliveryPolicy:
    """Lay `overrides` over `base`, field by field, the last one winning (rule D4).

    The result is not yet judged: call `check()` on it.
    """
    enabled, direct, outbox, dlq = base.enabled, base.direct, base.outbox, base.dlq
    for override in overrides:
        enabled = enabled if override.enabled is None else override.enabled
        direct = override.direct or direct
        outbox = override.outbox or outbox
        dlq = override.dlq or dlq
    return DeliveryPolicy(enabled, direct, outbox, dlq)


def parse_policies(text: str) -> dict[str, PolicyOverride]:
    """Read `STREAMING_EVENT_POLICIES`: `<definition key>.<field>=<value>` entries (rule D5).

    Entries are separated by comma, semicolon or newline; blank ones do not count; a later duplicate
    wins. Raises `PolicyError` that names the entry. Whether the keys exist, the `Catalog` checks.
    """
    entries = [entry for part in re.split(r"[,;\n]", text) if (entry := part.strip())]
    if len(entries) > MAX_ENTRIES:
        raise PolicyError(
            entries[MAX_ENTRIES], f"there are {len(entries)} entries; the limit is {MAX_ENTRIES}"
        )
    found: dict[str, dict[str, object]] = {}
    for entry in entries:
        key, field, value = _split_entry(entry)
        found.setdefault(key, {})[field] = value
    return {key: _override(values) for key, values in found.items()}


def parse_override(text: str) -> PolicyOverride:
    """Read the staging header `stage-policy`: `direct=…;outbox=…;dlq=…` (rule S10).

    Strict, for it is a wire format: no blanks, no unknown or repeated field, `enabled` is `true` or
    `false`. Any subset in any order; an empty text overrides nothing. Raises `PolicyError`.
    """
    values: dict[str, object] = {}
    for part in text.split(";") if text else ():
        field, equals, value = part.partition("=")
        if not equals:
            raise PolicyError(part, "write <field>=<value>")
        if field in values:
            raise PolicyError(part, f"the field {field} is given twice")
        values[field] = {"true": True, "false": False}.get(value) if field == "enabled" else value
        _require(part, field, values[field])
    return _override(values)


def format_override(override: PolicyOverride) -> str:
    """Write `override` as `parse_override` reads it; an empty text where it overrides nothing."""
    parts = {field: getattr(override, field) for field in _FIELDS}
    return ";".join(f"{field}={str(value).lower()}" for field, value in parts.items() if value is not None)


def override_from_mapping(values: Mapping[str, object]) -> PolicyOverride:
    """Make an override of plain values, as in `stage(policy={"outbox": "always"})`.

    `enabled` is a bool, the others are text; None is as good as left out. Raises `PolicyError`.
    """
    given = {field: value for field, value in values.items() if value is not None}
    for field, value in given.items():
        _require("", field, value)
    return _override(given)


def _split_entry(entry: str) -> tuple[str, str, object]:
    name, equals, text = entry.rpartition("=")
    key, dot, field = name.strip().rpartition(".")
    if not equals or not dot or not key:
        raise PolicyError(entry, f"write <definition key>.<field>=<value>; {_KNOWN}")
    value: object = text.strip()
    if field == "enabled":
        value = _BOOLEANS.get(str(value).lower())
        if value is None:
            raise PolicyError(entry, "enabled is true, 1, yes, false, 0 or no")
    _require(entry, field, value)
    return key, field, value


def _require(entry: str, field: str, value: object) -> None:
    reason = _value_problem(field, value)
    if reason:
        raise PolicyError(entry or f"{field}={value}", reason)


def _value_problem(field: str, value: object) -> str | None:
    if field == "enabled":
        return None if isinstance(value, bool) else "enabled is true or false"
    if field not in _VALUES:
        return f"unknown field {field!r}; {_KNOWN}"
    return None if value in _VALUES[field] else f"{field} is one of {', '.join(_VALUES[field])}"


def _override(values: Mapping[str, object]) -> PolicyOverride:
    # Every value has passed _require, and __post_init__ looks again.
    return PolicyOverride(
        enabled=cast("bool | None", values.get("enabled")),
        direct=cast("Direct | None", values.get("direct")),
        outbox=cast("Outbox | None", values.get("outbox")),
        dlq=cast("Dlq | None", values.get("dlq")),
    )
