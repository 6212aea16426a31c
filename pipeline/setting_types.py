"""The types of settings: how the text of a variable is read, and what is wrong with it.

Owns: each kind of value. Must not know: which variables there are.
"""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

__all__ = ["Namespace", "Seconds", "Servers", "Source", "Tokens", "TypePrefix"]

_NAMESPACE = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")
_TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}:[0-9a-f]{64}")
_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(\d{1,5})")


def _parts(value: str | tuple[object, ...]) -> tuple[str, ...]:
    given = value.split(",") if isinstance(value, str) else value
    return tuple(part for item in given if (part := str(item).strip()))


def _servers(value: object) -> object:
    if not isinstance(value, str | tuple):
        return value
    servers = _parts(value)
    for server in servers:
        found = _HOST_PORT.fullmatch(server)
        if found is None or not 0 < int(found[2]) < 65536:
            raise ValueError(f"{server!r} is not host:port")
    return servers


def _tokens(value: object) -> object:
    if not isinstance(value, str | tuple):
        return value
    tokens = _parts(value)
    for number, token in enumerate(tokens, 1):
        if not _TOKEN.fullmatch(token):  # not shown: it may be a token itself
            raise ValueError(f"entry {number} is not name:sha256, the SHA-256 of the token in 64 hex digits")
    if len({token.partition(":")[0] for token in tokens}) < len(tokens):
        raise ValueError("two tokens have the same name")
    return tokens


def _namespace(value: str) -> str:
    if not _NAMESPACE.fullmatch(value):
        raise ValueError("must match [a-z0-9][a-z0-9_-]* and have at most 100 characters")
    return value


def _type_prefix(value: str) -> str:
    if value and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}", value):
        raise ValueError("must be letters, digits, '.', '_' or '-', at most 255 characters")
    return value


def _source(value: str) -> str:
    # The CloudEvents `source`: a non-empty URI-reference (CloudEvents 1.0, 3.1.1).
    if value and (len(value.encode()) > 2048 or not re.fullmatch(r"[!-~]+", value)):
        raise ValueError("must be a URI-reference of printable ASCII without blanks, at most 2,048 bytes")
    return value


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be a finite number of seconds")
    return value


Servers = Annotated[tuple[str, ...], BeforeValidator(_servers)]
Tokens = Annotated[tuple[str, ...], BeforeValidator(_tokens)]
Namespace = Annotated[str, AfterValidator(_namespace)]
TypePrefix = Annotated[str, AfterValidator(_type_prefix)]
Source = Annotated[str, AfterValidator(_source)]
Seconds = Annotated[float, Field(gt=0, le=86_400), AfterValidator(_finite)]
