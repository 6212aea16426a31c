"""Reading a catalog: a Python module with `DEFINITIONS`, or a folder of TOML files (`STREAMING_CATALOG`).

Owns: finding and reading the source, and saying where in it a problem is. Must not know: the rules,
which are those of `catalog.definitions` and `catalog.checks`.
"""

from __future__ import annotations

import importlib
import json
import sys
import tomllib
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Final

import pydantic

from catalog.checks import POLICIES_VARIABLE, Entry, check
from catalog.definitions import EventDefinition
from catalog.errors import CatalogError, PolicyError, Problem
from catalog.policies import PolicyOverride, parse_policies
from catalog.registry import Catalog

ATTRIBUTE: Final = "DEFINITIONS"
TABLE: Final = "definitions"
CATALOG_VARIABLE: Final = "STREAMING_CATALOG"

_MACHINERY: Final = Path(__file__).parent
_EXAMPLE: Final = "catalog.examples.flights"
_Found = tuple[list[Entry], list[Problem]]


def load(source: str, *, namespace: str, policies: str = "", named_by: str = CATALOG_VARIABLE) -> Catalog:
    """Read and check the catalog at `source`; blocks on the disk, and runs a module's code.

    `source` is a dotted module (also one in the current directory) whose `DEFINITIONS` is a sequence
    of `EventDefinition`; or a folder whose `*.toml` files, at any depth, hold `[[definitions]]`
    tables. (A folder with an `__init__.py` is a module.) In TOML, `payload` is a JSON Schema: an
    inline table, or the path of a JSON file relative to the TOML file. `policies` is the text of
    `STREAMING_EVENT_POLICIES`, `named_by` what an error tells the reader to correct where there is
    no such source. Raises `CatalogError` with every problem found, each with file, entry and rule
    (rule D2).
    """
    entries, problems = _read(source, named_by)
    overrides, unreadable = _read_policies(policies)
    problems += unreadable
    if not entries and not problems:
        problems.append(Problem(source, "", "D1", "the catalog is empty: define at least one event"))
    if problems:
        broken = {problem.entry for problem in problems}
        known = {key: override for key, override in overrides.items() if key not in broken}
        raise CatalogError([*problems, *check(entries, namespace, known)])
    return Catalog(
        (entry.definition for entry in entries),
        namespace=namespace,
        policies=overrides,
        files=[entry.file for entry in entries],
    )


def _read(source: str, named_by: str) -> _Found:
    if not source:
        return _refused(named_by, f"name a module or a folder; the example is {_EXAMPLE}")
    return _read_folder(Path(source), named_by) if _is_folder(source) else _read_module(source, named_by)


def _is_folder(source: str) -> bool:
    if not all(part.isidentifier() for part in source.split(".")):
        return True
    path = Path(source)
    return source != "catalog" and path.is_dir() and not (path / "__init__.py").exists()


def _read_policies(text: str) -> tuple[dict[str, PolicyOverride], list[Problem]]:
    try:
        return parse_policies(text), []
    except PolicyError as error:
        return {}, [Problem(POLICIES_VARIABLE, error.entry, "D5", error.reason)]


def _refused(source: str, message: str) -> _Found:
    return [], [Problem(source, "", "D2", message)]


# --- a module


def _read_module(name: str, named_by: str) -> _Found:
    if name == "catalog":
        return _refused(name, f"this is the machinery, not a catalog; the example is {_EXAMPLE}")
    try:
        with _current_directory_importable():
            module = importlib.import_module(name)
    except CatalogError as error:
        return [], [replace(problem, file=problem.file or _blame(error, name)) for problem in error.problems]
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            return _refused(name, f"no such module or folder; check {named_by} and the current directory")
        return _refused(_blame(error, name), f"the import failed: {error}")
    except Exception as error:  # noqa: BLE001 - a user's module may raise anything; it is reported
        return _refused(_blame(error, name), f"the import failed: {type(error).__name__}: {error}")
    return _definitions_of(module)


def _definitions_of(module: ModuleType) -> _Found:
    file = _short(module.__file__) if module.__file__ else module.__name__
    found: object = getattr(module, ATTRIBUTE, None)
    if not isinstance(found, Sequence) or isinstance(found, str):
        return _refused(file, f"needs {ATTRIBUTE}, a list or tuple of EventDefinition")
    entries: list[Entry] = []
    problems: list[Problem] = []
    for index, item in enumerate(found):
        if isinstance(item, EventDefinition):
            entries.append(Entry(file, item))
        else:
            message = f"is a {type(item).__name__}, not an EventDefinition"
            problems.append(Problem(file, f"{ATTRIBUTE}[{index}]", "D1", message))
    return entries, problems


@contextmanager
def _current_directory_importable() -> Iterator[None]:
    here = str(Path.cwd())
    if here in sys.path:
        yield
        return
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def _blame(error: Exception, name: str) -> str:
    """Return `file:line` of the innermost frame that is the user's own, or the module's name."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(error.filename)}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _is_machinery(frame.filename)]
    return f"{_short(own[-1].filename)}:{own[-1].lineno}" if own else name


def _is_machinery(filename: str) -> bool:
    path = Path(filename)
    pydantic_home = Path(pydantic.__file__).parent
    return (
        filename.startswith("<")
        or path.parent == _MACHINERY
        or pydantic_home in path.parents
        or path.parent.name == "importlib"
    )


def _short(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


# --- a folder


def _read_folder(folder: Path, named_by: str) -> _Found:
    if not folder.is_dir():
        return _refused(str(folder), f"no such folder; check {named_by} and the current directory")
    if folder.resolve() == _MACHINERY.resolve():
        return _refused(str(folder), f"this is the machinery, not a catalog; the example is {_EXAMPLE}")
    files = sorted(folder.rglob("*.toml"))
    if not files:
        return _refused(str(folder), "the folder holds no *.toml file")
    entries: list[Entry] = []
    problems: list[Problem] = []
    for file in files:
        more_entries, more_problems = _read_toml(file)
        entries += more_entries
        problems += more_problems
    return entries, problems


def _read_toml(file: Path) -> _Found:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return _refused(str(file), f"cannot be read as TOML: {error}")
    unknown = sorted(document.keys() - {TABLE})
    if unknown:
        return _refused(str(file), f"unknown table or key {unknown[0]!r}; write [[{TABLE}]]")
    tables = document.get(TABLE, [])
    if not isinstance(tables, list):
        return _refused(str(file), f"{TABLE} is not an array of tables; write [[{TABLE}]]")
    entries: list[Entry] = []
    problems: list[Problem] = []
    for number, table in enumerate(tables, start=1):
        try:
            entries.append(Entry(str(file), _definition(file, table)))
        except CatalogError as error:
            problems += [
                replace(problem, file=str(file), entry=problem.entry or f"#{number}")
                for problem in error.problems
            ]
    return entries, problems


def _definition(file: Path, table: object) -> EventDefinition:
    if isinstance(table, Mapping) and isinstance(table.get("payload"), str):
        table = {**table, "payload": _schema_file(file.parent / table["payload"], table.get("key"))}
    return EventDefinition.model_validate(table)


def _schema_file(path: Path, key: object) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        entry = key if isinstance(key, str) else ""
        message = f"payload: cannot read the JSON Schema {path}: {error}"
        raise CatalogError([Problem("", entry, "D1", message)]) from None
