"""What a page is: where it is found, what it is asked with, what it answers. The same for people and programs.

Owns: the types that pages are written with. Must not know: aiohttp, templates, who may ask.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from pipeline.application import Application
from pipeline.errors import StagepostError

__all__ = ["Answer", "Asking", "Call", "Form", "Nothing", "Problem", "Raw", "Route"]


class Form(BaseModel):
    """Base of what a request may carry, in its query or its body; anything else is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_max_length=4_096)


class Nothing(Form):
    """A request that carries nothing."""


Asking = TypeVar("Asking", bound=Form)


class Problem(StagepostError):
    """The answer to a request that cannot be answered: an HTTP status and a sentence."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        self.message = message
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `by` is the name of the token that was shown, empty for a reader without one."""

    application: Application
    path: Mapping[str, str]
    query: Form
    body: Form
    by: str
    may_read: bool = True
    """False only on pages that everybody may see."""

    def asked(self, form: type[Asking]) -> Asking:
        """The query, as what the route declares."""
        assert isinstance(self.query, form)
        return self.query

    def given(self, form: type[Asking]) -> Asking:
        """The body, as what the route declares."""
        assert isinstance(self.body, form)
        return self.body


@dataclass(frozen=True, slots=True)
class Answer:
    """What a page says: the data, which are the JSON answer, and the template that shows them to people.

    `see`: where a browser goes after a change; a program gets the data.
    """

    data: BaseModel
    template: str = ""
    see: str = ""
    status: int = 200


@dataclass(frozen=True, slots=True)
class Raw:
    """An answer that is what it is for everybody."""

    body: bytes
    content_type: str
    status: int = 200
    headers: Mapping[str, str] | None = None


Handler = Callable[[Call], Awaitable[Answer | Raw]]


@dataclass(frozen=True, slots=True)
class Route:
    """A page, or a change that one asks for. A POST changes something, and so needs a token (O3)."""

    method: Literal["GET", "POST"]
    path: str
    handler: Handler
    summary: str
    answers: type[BaseModel] | None = None
    """The model of the data; None for what is no JSON."""
    query: type[Form] = Nothing
    body: type[Form] = Nothing
    is_open: bool = False
    """Whether everybody may read it, beyond loopback too."""
