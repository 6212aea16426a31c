"""The JSON API described: `/openapi.json`, made of the routes themselves, so that it cannot lag behind them.

Owns: the OpenAPI 3.1 document. Must not know: what any route does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, JsonValue
from pydantic.json_schema import models_json_schema
from pydantic_core import to_json

from pipeline.release import release
from pipeline.web.route import Call, Form, Nothing, Raw, Route

__all__ = ["document", "route"]

_PATTERN = re.compile(r"\{(\w+):(?:[^{}]|\{[^}]*\})*\}")
"""A parameter in a path with the pattern of what it takes, which may have braces of its own."""
_ERROR: dict[str, JsonValue] = {
    "type": "object",
    "required": ["status", "error"],
    "properties": {"status": {"type": "integer"}, "error": {"type": "string"}},
}
_ERRORS = {
    "400": "A value is wrong; the error names it.",
    "401": "A token is needed, or is wrong.",
    "403": "The request comes from another origin, or not from a form of this session.",
    "404": "There is no such thing.",
    "409": "It cannot be done in this state.",
    "415": "The body is neither JSON nor a form.",
    "503": "Kafka does not answer now.",
}


def route(others: Iterable[Route]) -> Route:
    """The route of the document, which describes the others."""
    body = to_json(document(tuple(others)))

    async def openapi(_: Call) -> Raw:
        return Raw(body, "application/json")

    return Route("GET", "/openapi.json", openapi, "This document.")


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """The OpenAPI document of these routes."""
    told = [route for route in routes if route.answers is not None]
    models: dict[type[BaseModel], None] = {}
    for item in told:
        assert item.answers is not None
        models |= {item.answers: None, item.body: None}
    pairs = [(model, "validation" if issubclass(model, Form) else "serialization") for model in models]
    refs, schemas = models_json_schema(pairs, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    named = {model: schema for (model, _), schema in refs.items()}
    paths: dict[str, dict[str, Any]] = {}
    for item in told:
        path = _PATTERN.sub(r"{\1}", item.path)
        paths.setdefault(path, {})[item.method.lower()] = _operation(item, named)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Stagepost worker",
            "version": release(),
            "description": "Send `Accept: application/json`. A POST needs `Authorization: Bearer <token>`, one of "
            "STREAMING_ADMIN_TOKENS; beyond loopback so does a GET.",
        },
        "paths": paths,
        "components": {
            "schemas": {**schemas.get("$defs", {}), "Error": _ERROR},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(item: Route, named: Mapping[Any, Any]) -> dict[str, Any]:
    assert item.answers is not None
    errors = {
        status: {
            "description": meaning,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
        for status, meaning in _ERRORS.items()
    }
    found = {"description": "The data.", "content": {"application/json": {"schema": named[item.answers]}}}
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{item.method.lower()}{item.path}").strip("_"),
        "summary": item.summary,
        "parameters": [*_of_path(item.path), *_of_query(item.query)],
        "responses": {"200": found, **errors},
        "security": [{"token": []}] if item.method == "POST" else [{}, {"token": []}],
    }
    if item.is_open:
        operation["responses"]["503"] = {**found, "description": "It is not."}
    if item.body is not Nothing:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": named[item.body]}},
        }
    return operation


def _of_path(path: str) -> list[dict[str, Any]]:
    names = re.findall(r"\{(\w+)(?::([^}]*))?\}", path)
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "integer" if pattern.startswith(r"\d") else "string"},
        }
        for name, pattern in names
    ]


def _of_query(query: type[Form]) -> list[dict[str, Any]]:
    schema = query.model_json_schema()
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": value}
        for name, value in schema.get("properties", {}).items()
    ]
