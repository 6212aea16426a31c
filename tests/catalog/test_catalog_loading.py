"""Reading catalogs: modules, folders, and where a problem is said to be (D2)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import catalog
from catalog import load
from catalog.errors import CatalogError, Problem

GOOD_MODULE = """
from catalog import EventDefinition
DEFINITIONS = [EventDefinition(key="a.b", resource_type="a", event_type="b")]
"""

GOOD_TOML = """
[[definitions]]
key = "a.b"
resource_type = "a"
event_type = "b"
policy = { outbox = "always" }
sources = ["urn:billing"]

[definitions.payload]
type = "object"
required = ["n"]

[[definitions.examples]]
n = 1
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in an empty current directory, and forget the modules a test imports from it."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    path = list(sys.path)
    yield
    assert path == sys.path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def write(files: dict[str, str]) -> None:
    """Write files below the current directory."""
    for name, text in files.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def problems(source: str, policies: str = "") -> list[Problem]:
    """Return the problems of the catalog at `source`."""
    with pytest.raises(CatalogError) as caught:
        load(source, namespace="ns", policies=policies)
    return list(caught.value.problems)


def problem(source: str, policies: str = "") -> Problem:
    """Return the one problem of the catalog at `source`."""
    (only,) = problems(source, policies)
    return only


def test_module_in_the_current_directory() -> None:
    """A module is found in the current directory, wherever the program was started from."""
    write({"my_events.py": GOOD_MODULE})
    items = load("my_events", namespace="ns", policies="a.b.dlq=never")
    assert items.topics == ("ns.a.b",)
    assert items.policy("a.b").dlq == "never"


def test_package_with_parts() -> None:
    """A catalog may be a package of several modules, also one the example names."""
    write({"shop/__init__.py": "from shop.parts import DEFINITIONS", "shop/parts.py": GOOD_MODULE})
    assert load("shop", namespace="ns").get("a.b")
    assert load("catalog.examples.flights", namespace="ns").get("flight.departed")


@pytest.mark.parametrize("source", ["no_such_module", "no_such.module", "catalog.nothing"])
def test_missing_module(source: str) -> None:
    """A module that does not exist is named (D2)."""
    found = problem(source)
    assert (found.file, found.rule) == (source, "D2")
    assert "no such module" in found.message


def test_the_machinery_is_no_catalog() -> None:
    """`catalog` itself is refused, by name and by folder, and the example is named."""
    for source in ("catalog", str(Path(catalog.__file__).parent)):
        assert "catalog.examples.flights" in problem(source).message


def test_empty_source() -> None:
    """An empty setting is not the current directory."""
    write({"a.toml": GOOD_TOML})
    assert problem("").file == "STREAMING_CATALOG"


@pytest.mark.parametrize("text", ["", "DEFINITIONS = None", "DEFINITIONS = 'a.b'", "DEFINITIONS = {}"])
def test_module_without_definitions(text: str) -> None:
    """A module needs a sequence `DEFINITIONS` (D1)."""
    write({"empty_events.py": text})
    found = problem("empty_events")
    assert found.file == "empty_events.py"
    assert "DEFINITIONS" in found.message


def test_wrong_element() -> None:
    """What is no EventDefinition is named by its place (D1)."""
    write({"odd_events.py": GOOD_MODULE + "DEFINITIONS += [{'key': 'x'}]"})
    found = problem("odd_events")
    assert (found.file, found.entry, found.rule) == ("odd_events.py", "DEFINITIONS[1]", "D1")


@pytest.mark.parametrize("source", ["no_events", "./toml"])
def test_empty_catalog(source: str) -> None:
    """A catalog without a definition is a mistake (D1)."""
    write({"no_events.py": "DEFINITIONS = ()", "toml/a.toml": ""})
    assert "empty" in problem(source).message


def test_bad_definition_in_a_module() -> None:
    """A definition that cannot be made is named with file, line, entry and every rule it breaks (D2)."""
    bad = "\n\nbad = EventDefinition(\n    key='x.y', resource_type='X', event_type='y', owner='a\\tb')\n"
    write({"pack/__init__.py": "import pack.inner", "pack/inner.py": GOOD_MODULE + bad})
    found = problems("pack")
    line = (GOOD_MODULE + bad).splitlines().index("bad = EventDefinition(") + 1
    assert {(item.file, item.entry) for item in found} == {(f"pack/inner.py:{line}", "x.y")}
    assert [item.rule for item in found] == ["D2", "S5"]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("import os\n1 / 0", 2, "ZeroDivisionError"),
        ("\nimport no_such_thing", 2, "No module named 'no_such_thing'"),
        ("x = 1\ny = (", 2, "SyntaxError"),
        ("from catalog import Nothing", 1, "Nothing"),
    ],
)
def test_module_that_fails(text: str, line: int, words: str) -> None:
    """A module that cannot be imported is named with the line that failed and the reason (D2)."""
    write({"broken_events.py": text})
    found = problem("broken_events")
    assert (found.file, found.rule) == (f"broken_events.py:{line}", "D2")
    assert words in found.message


def test_cross_checks_name_the_module() -> None:
    """What definitions do to each other is reported with the module's file (D2)."""
    write({"twin_events.py": GOOD_MODULE + "DEFINITIONS *= 2"})
    found = problem("twin_events")
    assert (found.file, found.entry, found.rule) == ("twin_events.py", "a.b", "D2")


def test_folder() -> None:
    """A folder of TOML files is read at any depth, in the order of names."""
    write(
        {
            "events/sub/b.toml": GOOD_TOML.replace('"a.b"', '"c.b"').replace('"a"', '"c"'),
            "events/a.toml": GOOD_TOML,
            "events/x.txt": "?",
        }
    )
    for source in ("events", "./events", str(Path("events").resolve())):
        items = load(source, namespace="ns")
        assert [item.key for item in items] == ["a.b", "c.b"]
    item = items.require("a.b")
    assert item.policy.outbox == "always"
    assert item.policy.enabled
    assert item.sources == ("urn:billing",)
    assert item.payload_schema == {"type": "object", "required": ["n"]}


def test_schema_file() -> None:
    """`payload` may be the path of a JSON Schema, relative to the TOML file."""
    text = '[[definitions]]\nkey = "a.b"\nresource_type = "a"\nevent_type = "b"\npayload = "schemas/b.json"\n'
    write({"events/in/a.toml": text, "events/in/schemas/b.json": json.dumps({"type": "integer"})})
    assert load("events", namespace="ns").require("a.b").payload == {"type": "integer"}


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_bad_schema_file(content: str | None) -> None:
    """A schema file that is missing, not JSON, or no schema is reported at its entry (D1)."""
    text = '[[definitions]]\nkey = "a.b"\nresource_type = "a"\nevent_type = "b"\npayload = "b.json"\n'
    write({"events/a.toml": text} | ({} if content is None else {"events/b.json": content}))
    found = problem("events")
    assert (found.file, found.entry, found.rule) == ("events/a.toml", "a.b", "D1")
    assert found.message.startswith("payload: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("key = ", "cannot be read as TOML"),
        ("\xff", "cannot be read as TOML"),
        ('[[definition]]\nkey = "a"', "'definition'"),
        ("definitions = 1", "array of tables"),
    ],
)
def test_bad_toml(text: str, words: str) -> None:
    """A file that is no catalog file is named (D2)."""
    Path("events").mkdir()
    Path("events/a.toml").write_bytes(text.encode("latin-1"))
    found = problem("events")
    assert (found.file, found.rule) == ("events/a.toml", "D2")
    assert words in found.message


def test_bad_folder() -> None:
    """A folder that is missing or holds no TOML file is named (D2)."""
    assert "no such folder" in problem("./nowhere").message
    Path("events").mkdir()
    assert "no *.toml file" in problem("events").message


def test_toml_problems_are_collected() -> None:
    """Every problem of every file comes at once, with file, entry or number, and rule (D2)."""
    nameless = '[[definitions]]\nresource_type = "a"\n'
    bad = GOOD_TOML.replace('"a.b"', '"x.y"').replace('resource_type = "a"', 'resource_type = "A"')
    write({"events/1.toml": nameless, "events/2.toml": GOOD_TOML + bad, "events/3.toml": GOOD_TOML})
    found = problems("events", policies="x.y.dlq=never,a.b.direct=skip,nobody.dlq=never")
    places = [(item.file, item.entry, item.rule) for item in found]
    assert places == [
        ("events/1.toml", "#1", "D1"),
        ("events/1.toml", "#1", "D1"),
        ("events/2.toml", "x.y", "D2"),
        ("events/3.toml", "a.b", "D2"),
        ("STREAMING_EVENT_POLICIES", "nobody", "D5"),
    ]


def test_table_that_is_none() -> None:
    """A number among the definitions is reported by its place (D1)."""
    write({"events/a.toml": "definitions = [1]"})
    assert (problem("events").entry, problem("events").rule) == ("#1", "D1")


def test_dates_in_examples() -> None:
    """TOML has dates, JSON has not: an example that holds one is refused (D1)."""
    write({"events/a.toml": GOOD_TOML + "at = 2026-01-01T00:00:00Z\n"})
    found = problem("events")
    assert (found.entry, found.rule) == ("a.b", "D1")
    assert found.message.startswith("examples")


def test_bad_policies_text() -> None:
    """An unreadable entry of the variable is named, beside the catalog's own problems (D5)."""
    write({"events/a.toml": GOOD_TOML.replace('"a"', '"A"')})
    found = problems("events", policies="a.b.colour=red")
    assert [(item.file, item.rule) for item in found] == [
        ("events/a.toml", "D2"),
        ("STREAMING_EVENT_POLICIES", "D5"),
    ]
    assert found[1].entry == "a.b.colour=red"


def test_folder_and_module_of_one_name() -> None:
    """A folder with an `__init__.py` is a module, any other is a folder of TOML files."""
    write({"events/a.toml": GOOD_TOML, "code/__init__.py": GOOD_MODULE, "code/a.toml": "broken"})
    assert load("events", namespace="ns").require("a.b").payload
    assert load("./code/../events", namespace="ns")
    del sys.modules["code"]  # the standard library has one
    assert load("code", namespace="ns").require("a.b").payload is None
    del sys.modules["code"]
