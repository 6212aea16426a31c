"""What worker and service log: one event name a line, then facts as key=value, then at most a note (O5)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
LINE = re.compile(r"[a-z]+\.[a-z_]+(?: [a-z_]+=%[srdg])*(?: -- [^%\n]+)?")
FORBIDDEN = re.compile(r"value|payload|body|headers|secret|password|token|settings")
"""Names of what must not be logged, or may hold what must not be."""


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call of a logger in the packages that are installed, and where it stands."""
    for package in ("pipeline", "agents", "catalog"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and is_log(node.func):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def is_log(called: ast.expr) -> bool:
    """Whether this is a method of a logger."""
    if not isinstance(called, ast.Attribute) or called.attr not in LEVELS | {"log"}:
        return False
    owner = called.value
    name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
    return name in {"log", "logger", "_log"}


def names_in(node: ast.expr) -> set[str]:
    """Variables and attributes of an expression."""
    found = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
    return found | {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


CALLS = list(calls())


@pytest.mark.parametrize("call", [call for _, call in CALLS], ids=[where for where, _ in CALLS])
def test_a_line_has_one_event_name_and_facts(call: ast.Call) -> None:
    """O5: programs can read every line, `event.name key=value ...`, its text written out where it is logged; nothing in
    it is a payload, a header or a secret."""
    message = call.args[0]
    assert isinstance(message, ast.Constant), "the text stands in the call"
    assert isinstance(message.value, str)
    assert LINE.fullmatch(message.value), message.value
    facts = message.value.partition(" -- ")[0].count("%")
    given = [argument for argument in call.args[1:] if not isinstance(argument, ast.Starred)]
    assert len(given) == facts or len(given) < len(call.args) - 1, "as many facts as are named"
    for argument in call.args[1:]:
        assert not [name for name in names_in(argument) if FORBIDDEN.fullmatch(name)], ast.unparse(argument)


def test_there_are_log_lines() -> None:
    """The test above sees them."""
    assert len(CALLS) > 40
