"""What importing the catalog costs, and what it offers (N3)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import catalog

ROOT = Path(catalog.__file__).parents[1]
PROGRAM = """
import importlib, sys
before = set(sys.modules)
for name in sys.argv[1:]:
    importlib.import_module(name)
roots = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(roots - sys.stdlib_module_names))
"""


def loaded_by(*modules: str) -> set[str]:
    """Return the top-level packages, beyond the standard library, that importing `modules` loads."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *modules], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module", ["catalog", "catalog.errors", "catalog.policies", "catalog.names", "catalog.limits"]
)
def test_light_modules(module: str) -> None:
    """These load the standard library and the catalog only, so that `stage` stays cheap to import (N3)."""
    assert loaded_by(module) == {"catalog"}


def test_jsonschema_only_when_needed() -> None:
    """A catalog whose payloads are pydantic models never loads jsonschema."""
    program = "import catalog, sys; catalog.load('catalog.examples.flights', namespace='n')"
    check = "; print('pydantic' in sys.modules, 'jsonschema' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program + check], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["True", "False"]


def test_no_pipeline_and_no_kafka() -> None:
    """The catalog imports nothing of ours from outside, no Kafka and no Faust."""
    found = loaded_by("catalog.loading", "catalog.lint", "catalog.export", "catalog.examples.flights")
    assert found.isdisjoint({"pipeline", "agents", "aiokafka", "faust", "mode", "demo"})


def test_every_public_name_resolves() -> None:
    """`__all__` is sorted, every name in it resolves, and nothing else does by accident."""
    assert catalog.__all__ == sorted(catalog.__all__)
    for name in catalog.__all__:
        assert getattr(catalog, name).__name__ == name
        assert name in dir(catalog)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = catalog.nothing  # type: ignore[attr-defined]
