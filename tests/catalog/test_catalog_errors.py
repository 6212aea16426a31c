"""What the catalog's errors say."""

from __future__ import annotations

import pytest

from catalog.errors import (
    CatalogError,
    PayloadRefused,
    PolicyError,
    Problem,
    StagepostError,
    UnknownDefinition,
)


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (Problem("a.toml", "x.y", "D2", "is taken"), "a.toml: entry 'x.y': D2: is taken"),
        (Problem("", "x.y", "D2", "is taken"), "entry 'x.y': D2: is taken"),
        (Problem("a.toml", "", "D2", "is\nno  TOML"), "a.toml: D2: is no TOML"),
    ],
)
def test_problem_is_one_line(problem: Problem, line: str) -> None:
    """A problem names file, entry and rule on one line, whatever its message holds (D2)."""
    assert line == str(problem)


def test_catalog_error_lists_every_problem() -> None:
    """The message of a catalog error holds all problems and says what to do (D2)."""
    problems = [Problem("a.toml", "x", "D2", "one"), Problem("b.toml", "y", "S5", "two")]
    error = CatalogError(problems)
    assert tuple(problems) == error.problems
    assert "2 problems" in str(error)
    assert "catalog lint" in str(error)
    assert all(str(problem) in str(error) for problem in problems)


def test_unknown_definition_suggests() -> None:
    """An unknown key is answered with the known ones that look like it."""
    error = UnknownDefinition("order.craeted", ["order.created", "user.deleted"])
    assert error.suggestions == ("order.created",)
    assert "did you mean 'order.created'?" in str(error)
    assert "did you mean" not in str(UnknownDefinition("zzz", ["order.created"]))


@pytest.mark.parametrize(
    "error",
    [
        CatalogError([]),
        UnknownDefinition("a", []),
        PayloadRefused("a", "b"),
        PolicyError("a", "b"),
    ],
)
def test_one_base(error: Exception) -> None:
    """Every error of the catalog can be caught by the project's one base."""
    assert isinstance(error, StagepostError)
