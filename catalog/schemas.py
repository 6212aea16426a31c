"""JSON Schemas of payloads: is one valid, compile it, and what is left of it without its prose.

Owns: everything that needs the `jsonschema` package, which is loaded on first use only. Must not
know: definitions. Dialect: Draft 2020-12. A `$ref` may point inside its own schema only: nothing is
fetched.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Final, cast

from pydantic import BaseModel, JsonValue

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator, FormatChecker

JsonSchema = dict[str, JsonValue]

_PROSE: Final = frozenset({"title", "description", "examples", "$comment"})
_NAMED: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_LITERAL: Final = frozenset({"const", "enum", "default"})
_RFC3339: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]*")


def model_schema(model: type[BaseModel]) -> JsonSchema:
    """Return the JSON Schema of what `model` accepts.

    Raises pydantic's `PydanticUserError` for a type that has none.
    """
    return cast("JsonSchema", model.model_json_schema(by_alias=True, mode="validation"))


def schema_problem(schema: Mapping[str, object]) -> str | None:
    """Return why `schema` is not a Draft 2020-12 JSON Schema that stands on its own, or None."""
    from jsonschema import Draft202012Validator, SchemaError

    try:
        json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError) as error:
        return f"a JSON Schema holds only what JSON has: {error}"
    declared = schema.get("$schema", Draft202012Validator.META_SCHEMA["$id"])
    if declared != Draft202012Validator.META_SCHEMA["$id"]:
        return f"the JSON Schema is of the dialect {declared!r}; use Draft 2020-12"
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return f"not a valid JSON Schema at {error.json_path}: {error.message}"
    return _reference_problem(schema)


def compile_schema(schema: Mapping[str, object]) -> Draft202012Validator:
    """Return the validator of a schema that `schema_problem` has nothing against.

    It checks formats, and never goes to the network for a `$ref`.
    """
    from jsonschema import Draft202012Validator
    from referencing import Registry

    return Draft202012Validator(schema, format_checker=_formats(), registry=Registry())


def without_prose(schema: JsonValue) -> JsonValue:
    """Return `schema` without titles, descriptions, examples and comments.

    Two schemas that accept the same may still differ; two that differ in prose only are then equal.
    """
    if isinstance(schema, list):
        return [without_prose(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        keyword: _keyword_without_prose(keyword, value)
        for keyword, value in schema.items()
        if keyword not in _PROSE
    }


def property_names(schema: JsonValue) -> frozenset[str]:
    """Return every property name that `schema` declares at any depth."""
    return frozenset(_property_names(schema))


def _keyword_without_prose(keyword: str, value: JsonValue) -> JsonValue:
    if keyword in _LITERAL:
        return value
    if keyword in _NAMED and isinstance(value, dict):
        return {name: without_prose(item) for name, item in value.items()}
    return without_prose(value)


def _property_names(schema: JsonValue) -> Iterator[str]:
    if isinstance(schema, list):
        for item in schema:
            yield from _property_names(item)
    elif isinstance(schema, dict):
        properties = schema.get("properties")
        if isinstance(properties, dict):
            yield from properties
        for item in schema.values():
            yield from _property_names(item)


def _reference_problem(schema: Mapping[str, object]) -> str | None:
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    root = DRAFT202012.create_resource(schema)
    registry = Registry().with_resource(root.id() or "", root)
    todo = [(root, registry.resolver_with_root(root))]
    while todo:
        resource, resolver = todo.pop()
        contents = resource.contents
        if isinstance(contents, Mapping):
            for keyword in ("$ref", "$dynamicRef"):
                try:
                    resolver.lookup(contents.get(keyword, "#"))
                except Unresolvable:
                    return f"{keyword} {contents[keyword]!r} points outside the schema or to nothing"
        todo += [(sub, resolver.in_subresource(sub)) for sub in resource.subresources()]
    return None


@cache
def _formats() -> FormatChecker:
    # jsonschema checks these three only with further packages installed, and else says nothing.
    from jsonschema import Draft202012Validator, FormatChecker

    formats = FormatChecker(formats=())
    formats.checkers = dict(Draft202012Validator.FORMAT_CHECKER.checkers)
    formats.checks("date-time", raises=ValueError)(_is_date_time)
    formats.checks("time", raises=ValueError)(_is_time)
    formats.checks("uri")(lambda value: not isinstance(value, str) or bool(_URI.fullmatch(value)))
    return formats


def _is_date_time(value: object) -> bool:
    if not isinstance(value, str):
        return True  # a format says nothing about values that are not text
    if not _RFC3339.fullmatch(value):
        return False
    dt.datetime.fromisoformat(value.upper())
    return True


def _is_time(value: object) -> bool:
    return not isinstance(value, str) or _is_date_time(f"2000-01-01T{value}")


def unchecked_formats(schema: JsonValue) -> frozenset[str]:
    """Return the names of the formats that `schema` asks for and no check knows."""
    return frozenset(_formats_in(schema)) - _formats().checkers.keys()


def _formats_in(schema: JsonValue) -> Iterator[str]:
    if isinstance(schema, list):
        for item in schema:
            yield from _formats_in(item)
    elif isinstance(schema, dict):
        name = schema.get("format")
        if isinstance(name, str):
            yield name
        for item in schema.values():
            yield from _formats_in(item)
