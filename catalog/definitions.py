"""`EventDefinition`: one entry of the catalog and the rules it can be judged by alone (rule D1).

Owns: the fields, their forms and byte limits (D2, S5). Must not know: the other definitions, the
namespace in force, files. What needs those is in `catalog.checks`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ModelWrapValidatorHandler,
    PlainValidator,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from catalog import limits
from catalog.errors import CatalogError, PolicyError, Problem
from catalog.names import major_of, target_topic
from catalog.policies import DeliveryPolicy, merge, override_from_mapping
from catalog.schemas import JsonSchema, model_schema, schema_problem

Payload = type[BaseModel] | JsonSchema

_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9_-]*")
# The pattern that semver.org gives for Semantic Versioning 2.0.0.
_SEMVER: Final = re.compile(
    r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"
    r"(-(0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*))*)?"
    r"(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?"
)
_TCHARS: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# RFC 9110, 8.3.1: type/subtype, then parameters whose values are tokens or quoted strings.
_MEDIA_TYPE: Final = re.compile(
    rf'{_TCHARS}/({_TCHARS})([ \t]*;[ \t]*{_TCHARS}=({_TCHARS}|"([^"\\]|\\.)*"))*'
)
# RFC 3986: a scheme, then at least one of the characters that a URI may hold.
_ABSOLUTE_URI: Final = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*:([A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+"
)


def _wrong(rule: str, message: str) -> PydanticCustomError:
    # The error's type carries the rule id; braces would be taken for a template.
    return PydanticCustomError(rule, "{message}", {"message": message})


def _text(limit: int) -> AfterValidator:
    def check(value: str) -> str:
        problem = limits.text_problem(value, limit)
        if problem:
            raise _wrong("S5", problem)
        return value

    return AfterValidator(check)


def _form(rule: str, pattern: re.Pattern[str], form: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise _wrong(rule, f"must be {form}")
        return value

    return AfterValidator(check)


def _policy(value: object) -> DeliveryPolicy:
    if isinstance(value, DeliveryPolicy):
        return value
    if not isinstance(value, Mapping):
        raise _wrong("D3", "must be a DeliveryPolicy or a mapping")
    try:
        return merge(DeliveryPolicy(), override_from_mapping(value))
    except PolicyError as error:
        raise _wrong("D3", f"{error.entry}: {error.reason}") from None


def _payload(value: object) -> Payload | None:
    if value is None:
        return None
    if isinstance(value, type) and issubclass(value, BaseModel):
        return value
    if not isinstance(value, Mapping):
        raise _wrong("D1", "must be a pydantic model class or a JSON Schema (a mapping)")
    schema: JsonSchema = copy.deepcopy(dict(value))
    problem = schema_problem(schema)
    if problem:
        raise _wrong("D1", problem)
    return schema


def _not_empty(sources: tuple[str, ...]) -> tuple[str, ...]:
    if not sources:
        raise _wrong("D1", "must name who may stage this, or be left out: then anyone may")
    return sources


def _plain_examples(value: object) -> object:
    if not isinstance(value, list | tuple):
        return value
    return [
        item.model_dump(mode="json", by_alias=True) if isinstance(item, BaseModel) else item for item in value
    ]


_TypeName = Annotated[
    str, _text(limits.TYPE_BYTES), _form("D2", _TYPE, "lower-case letters, digits, '_' and '-'")
]
_Source = Annotated[str, Field(min_length=1), _text(limits.SOURCE_BYTES)]
_Sources = Annotated[tuple[_Source, ...], Field(strict=False), AfterValidator(_not_empty)]
_Policy = Annotated[DeliveryPolicy, PlainValidator(_policy)]
_Examples = Annotated[tuple[JsonValue, ...], Field(strict=False), BeforeValidator(_plain_examples)]


class EventDefinition(BaseModel):
    """One kind of event: what it is called, what it carries and how it is delivered (rule D1).

    Text limits in bytes of UTF-8 (rule S5): key 256, types 128, schema_version 64, content_type 256,
    data_schema 2048. `policy` takes a DeliveryPolicy or a mapping; what it leaves out keeps its
    default. `payload` is a pydantic model class or a JSON Schema (Draft 2020-12); without it any
    payload passes that the content type allows. `examples` are payloads as JSON values or instances
    of the model. A definition that breaks a rule raises `CatalogError` with every `Problem` in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    key: Annotated[str, Field(min_length=1), _text(limits.KEY_BYTES)]
    resource_type: _TypeName
    event_type: _TypeName
    schema_version: Annotated[
        str,
        _text(limits.SCHEMA_VERSION_BYTES),
        _form("D1", _SEMVER, "a semantic version such as 1.0.0"),
    ] = "1.0.0"
    content_type: Annotated[
        str,
        _text(limits.CONTENT_TYPE_BYTES),
        _form("D1", _MEDIA_TYPE, "a media type such as application/json"),
    ] = "application/json"
    data_schema: (
        Annotated[str, _text(limits.DATA_SCHEMA_BYTES), _form("D1", _ABSOLUTE_URI, "an absolute URI")] | None
    ) = None
    description: str = ""
    owner: Annotated[str, _text(limits.OWNER_BYTES)] = ""
    system: bool = False
    sources: _Sources | None = None
    topic: Annotated[str, Field(min_length=1)] | None = None
    policy: _Policy = DeliveryPolicy()
    payload: Annotated[Payload | None, PlainValidator(_payload)] = None
    examples: _Examples = ()

    if TYPE_CHECKING:
        # What the constructor takes is wider than what the fields hold.
        def __init__(
            self,
            *,
            key: str,
            resource_type: str,
            event_type: str,
            schema_version: str = "1.0.0",
            content_type: str = "application/json",
            data_schema: str | None = None,
            description: str = "",
            owner: str = "",
            system: bool = False,
            sources: Sequence[str] | None = None,
            topic: str | None = None,
            policy: DeliveryPolicy | Mapping[str, object] = ...,
            payload: type[BaseModel] | Mapping[str, object] | None = None,
            examples: Sequence[object] = (),
        ) -> None: ...

    @field_validator("key")
    @classmethod
    def _key_fits_the_policies_text(cls, key: str) -> str:
        if key != key.strip() or set(key) & set(",;"):
            raise _wrong("D5", "must not hold ',' or ';', nor begin or end with a blank")
        return key

    @model_validator(mode="after")
    def _payload_fits_the_content_type(self) -> EventDefinition:
        if self.payload is not None and not self.is_json:
            raise _wrong("D1", f"payload needs a JSON content type, not {self.content_type}")
        return self

    # The last validator is the outermost one: it sees the errors of all before it.
    @model_validator(mode="wrap")
    @classmethod
    def _name_the_entry(
        cls, data: object, handler: ModelWrapValidatorHandler[EventDefinition]
    ) -> EventDefinition:
        try:
            return handler(data)
        except ValidationError as error:
            key = data.get("key") if isinstance(data, Mapping) else None
            entry = key if isinstance(key, str) else ""
            raise CatalogError(_problems(entry, error)) from None

    def __hash__(self) -> int:
        """Hash by key, for a payload's JSON Schema cannot be hashed."""
        return hash(self.key)

    @property
    def major(self) -> int:
        """The major part of `schema_version`."""
        return major_of(self.schema_version)

    @property
    def is_json(self) -> bool:
        """Whether the content type is `application/json` or ends in `+json`; parameters do not count."""
        media_type = self.content_type.partition(";")[0].strip().lower()
        return media_type == "application/json" or media_type.endswith("+json")

    @property
    def payload_schema(self) -> JsonSchema | None:
        """The payload's JSON Schema, made of the pydantic model where it is one; None without payload."""
        if isinstance(self.payload, type):
            return model_schema(self.payload)
        return self.payload

    def topic_in(self, namespace: str) -> str:
        """Return the target topic of this event (rule T1)."""
        return target_topic(namespace, self.resource_type, self.event_type, self.schema_version, self.topic)


def _problems(entry: str, error: ValidationError) -> list[Problem]:
    found = []
    for detail in error.errors(include_url=False, include_input=False):
        rule = detail["type"] if re.fullmatch(r"[A-Z][0-9]+", detail["type"]) else "D1"
        place = ".".join(map(str, detail["loc"]))
        message = detail["msg"]
        found.append(Problem("", entry, rule, f"{place}: {message}" if place else message))
    return found
