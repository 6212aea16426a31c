"""Payload validation: one validator per definition, compiled once, used for every event (rule S4).

Owns: the judgement "these bytes are a payload of that definition", and how it is worded without
repeating a value of the payload. Must not know: where bytes come from or go to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from catalog.definitions import EventDefinition
from catalog.errors import PayloadRefused
from catalog.schemas import JsonSchema, compile_schema, property_names

if TYPE_CHECKING:
    from jsonschema import ValidationError as JsonSchemaError

Judge = Callable[[bytes], str | None]
"""Takes a body, returns why it is refused, or None."""

_N: Final = ord("N")
_I: Final = ord("I")
_SHOWN: Final = 5
"""Reasons that one refusal lists."""


@dataclass(frozen=True, slots=True)
class PayloadValidator:
    """Judges payloads of one definition. Make it with `validator_of`; safe to share between threads."""

    key: str
    declared: bool
    judge: Judge

    def check(self, body: bytes | None) -> None:
        """Return if `body` may be staged; None stands for an event without data.

        Does no I/O. Raises `PayloadRefused`, whose reason names locations and rules, never values.
        """
        if body is not None:
            reason = self.judge(body)
        else:
            reason = "no data, but the definition declares a payload" if self.declared else None
        if reason is not None:
            raise PayloadRefused(self.key, reason)


def validator_of(definition: EventDefinition) -> PayloadValidator:
    """Compile the validator of `definition`; costs milliseconds, so do it once."""
    return PayloadValidator(definition.key, definition.payload is not None, _judge_of(definition))


def _judge_of(definition: EventDefinition) -> Judge:
    if not definition.is_json:
        return _accept
    if definition.payload is None:
        return _json_problem
    if isinstance(definition.payload, dict):
        return _schema_judge(definition.payload)
    return _model_judge(definition.payload)


def _accept(_body: bytes) -> str | None:
    return None


def _json_problem(body: bytes) -> str | None:
    try:
        from_json(body, allow_inf_nan=False, cache_strings="none")
    except ValueError as error:  # its text holds a position, not a value
        return f"not JSON (RFC 8259, UTF-8): {error}"
    return None


def _model_judge(model: type[BaseModel]) -> Judge:
    known = property_names(model.model_json_schema())
    validate = model.__pydantic_validator__.validate_json

    def judge(body: bytes) -> str | None:
        # pydantic reads NaN and Infinity, which JSON does not have: look for them first.
        # One byte, as a number, is found many times as fast as several; `find` begins sooner than `in`.
        odd = (_N in body and body.find(b"NaN") >= 0) or (_I in body and body.find(b"Infinity") >= 0)
        if odd and (problem := _json_problem(body)):
            return problem
        try:
            validate(body)
        except ValidationError as error:
            details = error.errors(include_url=False, include_context=False, include_input=False)
            if details[0]["type"] == "json_invalid":
                return _json_problem(body)
            return _list_reasons((_place(detail["loc"], known), detail["type"]) for detail in details)
        except Exception as error:  # noqa: BLE001 - a model's own validators may raise anything
            return _failed(error)
        return None

    return judge


def _schema_judge(schema: JsonSchema) -> Judge:
    validator = compile_schema(schema)
    known = property_names(schema)

    def judge(body: bytes) -> str | None:
        try:
            value = from_json(body, allow_inf_nan=False)
        except ValueError as error:
            return f"not JSON (RFC 8259, UTF-8): {error}"
        try:
            errors = list(islice(validator.iter_errors(value), _SHOWN + 1))
        except Exception as error:  # noqa: BLE001 - such as endless recursion
            return _failed(error)
        return _list_reasons(_schema_reason(error, known) for error in errors)

    return judge


def _failed(error: Exception) -> str:
    # Without a verdict the payload cannot pass; the error's text may quote it.
    return f"its validator failed with {type(error).__name__}"


def _schema_reason(error: JsonSchemaError, known: frozenset[str]) -> tuple[str, str]:
    rule = str(error.validator)
    if rule == "required" and isinstance(error.validator_value, list):
        present = error.instance if isinstance(error.instance, dict) else {}
        missing = [name for name in error.validator_value if name not in present]
        rule += f" {', '.join(map(str, missing))}"
    return _place(error.absolute_path, known), rule


def _place(path: Iterable[str | int], known: frozenset[str]) -> str:
    # A name that the schema does not declare comes from the payload, so it is not repeated.
    steps = (f"[{step}]" if isinstance(step, int) else f".{step if step in known else '*'}" for step in path)
    return "".join(steps).removeprefix(".") or "(root)"


def _list_reasons(found: Iterable[tuple[str, str]]) -> str | None:
    reasons = list(dict.fromkeys(f"{place}: {rule}" for place, rule in found))
    if not reasons:
        return None
    return "; ".join(reasons[:_SHOWN]) + ("; and more" if len(reasons) > _SHOWN else "")
